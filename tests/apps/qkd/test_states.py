"""The life of a run: every way out, and what is not allowed anywhere."""

import copy

import numpy as np
import pytest

from qstack.apps.qkd import events, messages
from qstack.apps.qkd.states import ALICE, BOB, Input, State
from tests.apps.qkd.world import SMALL, World

ENDS = (State.DONE, State.ABORTED)


@pytest.mark.parametrize("table", [ALICE, BOB], ids=["alice", "bob"])
def test_a_failure_ends_every_state_but_the_last_two(table):
    for state in State:
        assert table.is_final(state) == (state in ENDS)
        assert table.allows(state, Input.FAILURE) == (state not in ENDS)
    assert "CONFIRMING" in table.matrix()


@pytest.mark.parametrize("table", [ALICE, BOB], ids=["alice", "bob"])
def test_every_way_to_a_key_goes_through_verification_tags_and_confirmation(table):
    for gate in (Input.VERIFIED, Input.TAG, Input.CONFIRMED):
        reached, edge = {table.start}, True
        while edge:
            steps = [
                target
                for (source, received), target in table.cells.items()
                if source in reached and received is not gate and target not in reached
            ]
            reached |= set(steps)
            edge = bool(steps)
        assert State.DONE not in reached


def phases_of(role: str) -> list[str]:
    run = World().run()
    assert len(run.keys) == 2
    return sorted({p.phase for who, p in run.progress if who == role} - {"done"})


ALL_PHASES = [(role, phase) for role in ("alice", "bob") for phase in phases_of(role)]


class Stopped(World):
    """A run that stops when one end enters a phase."""

    def deliver(self):
        while (self.wire or len(self.needs) == 2) and not self.dead:
            if self.wire:
                to, data = self.wire.popleft()
                self.event(to, events.Received(data))
            else:
                self.measure()


def stopped(role: str, phase: str) -> World:
    run = Stopped(kill_at=(role, phase))
    for each in ("bob", "alice"):
        run.event(each, events.Begin())
    run.deliver()
    assert run.ends[role].state.name.lower() == phase
    run.dead.clear()
    return run


def example(kind):
    """A message of a class, in its bounds."""
    fields = {
        messages.Hello: {"role": "bob", "network": "test", "sender": "leiden", "attempt": 0,
                         "receiver": "delft", "nonce": bytes(16), "is_seeded": True,
                         "parameters": SMALL},
        messages.PairsMeasured: {"pairs": 5},
        messages.Bases: {"part": 0, "parts": 2, "bits": b""},
        messages.XOutcomes: {"part": 0, "parts": 2, "bits": b""},
        messages.Seed: {"part": 0, "parts": 2, "bits": b""},
        messages.Reconcile: {"seed": bytes(16)},
        messages.BlocksQuery: {"number": 20, "level": 1},
        messages.NodesQuery: {"nodes": bytes(4)},
        messages.Parities: {"count": 100_000, "bits": b""},
        messages.Verify: {"choice": bytes(16), "hash": bytes(16)},
        messages.Verified: {"z_errors": 4000},
        messages.TranscriptTag: {"tag": bytes(16)},
        messages.Release: {"key_bits": 1, "leak_bits": 1, "tag": bytes(16)},
        messages.Confirm: {"tag": bytes(16)},
        messages.Abort: {"reason": "<script>"},
    }  # fmt: skip
    return kind(**fields.get(kind, {}))


FITTING = {
    ("alice", "greeting", "Hello"),
    ("alice", "measuring", "PairsMeasured"),
    ("alice", "reconciling", "Corrected"),
    ("alice", "verifying", "Unverified"),
    ("bob", "ready", "Reconcile"),
    ("bob", "verifying", "Verify"),
}
"""Examples that are what comes next: the run goes on, and ends where the two ends differ."""


@pytest.mark.parametrize(("role", "phase"), ALL_PHASES)
def test_no_message_out_of_place_gives_a_key_or_an_exception(role, phase):
    snapshot = stopped(role, phase)
    for kind in messages.MESSAGES:
        run = copy.deepcopy(snapshot)
        peer = run.ends["bob" if role == "alice" else "alice"]._conversation
        end = run.ends[role]._conversation
        peer._sent, peer.session = end._received, end.session
        run.event(role, events.Received(peer.seal(example(kind))))
        assert (role in run.aborts) == ((role, phase, kind.__name__) not in FITTING)
        assert not run.keys
        if role in run.aborts:
            assert run.aborts[role].reason.name != "INTERNAL"
            assert not run.ends[role].handle(events.Begin())


@pytest.mark.parametrize(("role", "phase"), ALL_PHASES)
@pytest.mark.parametrize(
    "event",
    [
        events.Closed("the far end closed"),
        events.Deadline(),
        events.Begin(),
        events.Received(b""),
        events.Received(bytes(50)),
        events.Measured(np.zeros(3, dtype=np.uint8), np.zeros(4, dtype=np.uint8)),
    ],
    ids=["closed", "deadline", "begin", "nothing", "zeros", "measured"],
)
def test_every_event_out_of_place_ends_the_run(role, phase, event):
    run = stopped(role, phase)
    run.event(role, event)
    assert role in run.aborts
    assert run.ends[role].state is State.ABORTED
    World.deliver(run)
    # Bob has confirmed: alice, who has heard it or will, keeps her key; he has none.
    assert set(run.keys) == ({"alice"} if (role, phase) == ("bob", "confirming") else set())


def test_an_error_of_our_own_ends_the_run_without_its_text(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("these bits are secret: 0101")

    monkeypatch.setattr("qstack.apps.qkd.machine.sift", broken)
    run = World().run()
    assert run.aborts["bob"].reason.name == "INTERNAL"
    assert run.aborts["bob"].detail == "ZeroDivisionError"
    assert run.reasons()["alice"] == "PEER_ABORTED"
    assert not run.keys
