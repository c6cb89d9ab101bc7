"""The clock's coordinator: no effect inside a window, and the books of what is in flight."""

from random import Random

import pytest

from qstack.machine import FABRIC
from qstack.runtime.lockstep import Coordinator, Round, Sent

LOOKAHEAD = 10


def started(*nodes: str, next_ns: int | None = None) -> Coordinator:
    coordinator = Coordinator([*nodes], LOOKAHEAD)
    for name in sorted(nodes):
        coordinator.joined(name, next_ns)
    return coordinator


def test_a_window_ends_the_lookahead_after_the_first_event() -> None:
    coordinator = started("a", "b")
    coordinator.woke("a", 100, is_demanding=True)
    coordinator.woke("b", 109, is_demanding=True)
    assert coordinator.next_round(None) == Round(110, ["a", "b"])
    coordinator.woke("b", 110, is_demanding=True)
    assert coordinator.next_round(None) == Round(110, ["a"])


def test_a_limit_ends_the_window_sooner() -> None:
    coordinator = started("a")
    coordinator.woke("a", 100, is_demanding=True)
    assert coordinator.next_round(105) == Round(105, ["a"])
    assert coordinator.next_round(100) is None
    assert coordinator.now_ns == 100


def test_a_limit_that_has_passed_does_not_turn_the_clock_back() -> None:
    coordinator = started("a")
    coordinator.finish(Round(50, []))
    assert coordinator.next_round(20) is None
    assert coordinator.now_ns == 50


def test_without_anything_to_do_there_is_no_round() -> None:
    coordinator = started("a", "b")
    assert coordinator.next_round(None) is None
    assert not coordinator.has_demand
    assert coordinator.rounds == 0


def test_a_message_in_flight_wakes_its_receiver_and_is_demand() -> None:
    coordinator = started("a", "b")
    coordinator.done("a", None, {"b": Sent(2, 70)}, is_demanding=False)
    coordinator.done("a", None, {"b": Sent(1, 60)}, is_demanding=False)
    assert coordinator.has_demand
    assert coordinator.expected_by("b") == {"a": 3}
    assert coordinator.next_round(None) == Round(70, ["b"])
    coordinator.advancing("b")
    coordinator.done("b", None, {}, is_demanding=False)
    assert not coordinator.has_demand
    assert coordinator.expected_by("b") == {"a": 3}


def test_the_fabric_acts_without_being_named() -> None:
    coordinator = started("a")
    coordinator.done(FABRIC, 30, {}, is_demanding=True)
    assert coordinator.next_round(None) == Round(40, [])


def test_work_for_the_past_is_done_at_the_present() -> None:
    coordinator = started("a")
    coordinator.finish(Round(200, []))
    coordinator.woke("a", 100, is_demanding=True)
    assert coordinator.next_round(None) == Round(210, ["a"])


def test_who_has_left_is_not_expected_from_nor_sent_to() -> None:
    coordinator = started("a", "b", "c")
    coordinator.done("a", 500, {"b": Sent(2, 70), "c": Sent(1, 80)}, is_demanding=True)
    coordinator.done("b", 600, {"c": Sent(4, 90)}, is_demanding=True)
    epoch = coordinator.epoch
    coordinator.left("b")
    coordinator.left("b")
    assert coordinator.epoch == epoch + 1
    assert coordinator.expected_by("c") == {"a": 1}
    assert coordinator.expected_by("b") == {}
    coordinator.done("a", 500, {"b": Sent(1, 75)}, is_demanding=True)
    assert coordinator.expected_by("b") == {}
    coordinator.joined("b", 700)
    assert coordinator.expected_by("b") == {}
    assert coordinator.epoch == epoch + 2
    coordinator.done("a", 500, {"b": Sent(1, 720)}, is_demanding=True)
    assert coordinator.expected_by("b") == {"a": 1}


def test_nobody_joins_twice() -> None:
    coordinator = started("a")
    with pytest.raises(AssertionError):
        coordinator.joined("a", None)


def test_a_lookahead_of_nothing_is_refused() -> None:
    with pytest.raises(AssertionError):
        Coordinator(["a"], 0)


def test_housekeeping_is_no_demand() -> None:
    coordinator = started("a")
    coordinator.woke("a", 5, is_demanding=False)
    assert not coordinator.has_demand
    assert coordinator.next_round(None) == Round(15, ["a"])


class Crowd:
    """Participants that send at random; an effect is never sooner than the lookahead."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.names = [f"n{i}" for i in range(self.rng.randint(1, 5))]
        self.coordinator = started(*self.names)
        self.inbox: dict[str, list[tuple[int, str]]] = {name: [] for name in [*self.names, FABRIC]}
        self.received: dict[tuple[str, str], int] = {}
        self.done_to = dict.fromkeys([*self.names, FABRIC], 0)
        for name in self.names:
            first = self.rng.randrange(50)
            self.inbox[name].append((first, name))
            self.coordinator.woke(name, first, is_demanding=True)

    def act(self, name: str, until_ns: int) -> None:
        sent: dict[str, Sent] = {}
        while self.inbox[name] and min(self.inbox[name])[0] < until_ns:
            due = min(self.inbox[name])
            self.inbox[name].remove(due)
            assert due[0] >= self.done_to[name], "an effect inside a window that is done"
            for _ in range(self.rng.choice([0, 0, 1, 1, 1, 2])):
                self.send(name, max(due[0], self.coordinator.now_ns), sent)
        self.done_to[name] = until_ns
        next_ns = min(self.inbox[name])[0] if self.inbox[name] else None
        self.coordinator.done(name, next_ns, sent, is_demanding=next_ns is not None)

    def send(self, name: str, at_ns: int, sent: dict[str, Sent]) -> None:
        target = self.rng.choice([*self.names, FABRIC])
        if target == FABRIC and name != FABRIC:
            due = at_ns  # operations are done in the same window, after the nodes
        else:
            due = at_ns + LOOKAHEAD + self.rng.choice([0, 0, 1, 7, 90])
        self.inbox[target].append((due, name))
        if target != name:
            key = (target, name)
            self.received[key] = self.received.get(key, 0) + 1
            before = sent.get(target, Sent(0, due))
            sent[target] = Sent(before.messages + 1, min(before.earliest_ns, due))

    def round(self) -> bool:
        limit = self.rng.choice([None, None, self.coordinator.now_ns + self.rng.randint(1, 40)])
        round_ = self.coordinator.next_round(limit)
        if round_ is None:
            return limit is not None
        for name in round_.names:
            expected = self.coordinator.expected_by(name)
            assert expected == {s: n for (t, s), n in self.received.items() if t == name}
            self.coordinator.advancing(name)
        for name in round_.names:
            self.act(name, round_.until_ns)
        self.coordinator.advancing(FABRIC)
        self.act(FABRIC, round_.until_ns)
        self.coordinator.finish(round_)
        for name in self.inbox:
            assert all(due >= round_.until_ns for due, _ in self.inbox[name]), "left undone"
        return True


@pytest.mark.parametrize("seed", range(40))
def test_nobody_is_told_of_what_lies_before_what_he_has_done(seed: int) -> None:
    crowd = Crowd(seed)
    last = 0
    for _ in range(120):
        if not crowd.round():
            break
        assert crowd.coordinator.now_ns >= last
        last = crowd.coordinator.now_ns
