"""Swapping and tracking against the truth: who is entangled with whom, in which Bell state.

Not verified here: physics (fidelity, rates) and the link layer's own behaviour.
"""

from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstack.link import service as link
from qstack.machine import FromPeer, Told
from qstack.network import messages, service
from qstack.network.params import EARLY_NS, EARLY_TRACKS_MAX, PAIR_HISTORY_MAX
from qstack.physical import service as physical
from tests.network.world import SECOND, Options, Qubit, World, chain


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(12))
def test_both_ends_get_the_number_of_pairs_in_the_true_bell_state(count: int, seed: int) -> None:
    world = World(chain(count), seed)
    tail = f"n{count - 1}"
    request = world.create("n0", tail, 3)
    world.run()
    assert world.ending("n0", request) == world.ending(tail, request) == "done"
    assert world.check("n0", tail, request) == 3
    world.check_ledger()


@given(count=st.integers(2, 7), plan=st.lists(st.integers(0, 400_000), min_size=40, max_size=40))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_bell_bits_are_the_xor_in_every_order_of_arrival(count: int, plan: list[int]) -> None:
    world = World(chain(count), 1, Options(spread_ns=400_000, swap_spread_ns=400_000))
    delays = iter(plan * 100)
    world.hold = lambda _source, _target, message: (
        next(delays) if isinstance(message, messages.Track) else 0
    )
    tail = f"n{count - 1}"
    request = world.create("n0", tail, 2)
    world.run()
    assert world.check("n0", tail, request) == 2
    world.check_ledger()


@pytest.mark.parametrize("block", range(10))
def test_no_pair_is_wrong_or_leaked_whatever_is_discarded_or_cancelled(block: int) -> None:
    for seed in range(block * 32, block * 32 + 32):
        chance = Random(10**6 + seed)
        count = chance.randrange(2, 6)
        options = Options(
            swap_failure=chance.choice([0.0, 0.1]),
            void=chance.choice([0.0, 0.15]),
            cutoff_ns=chance.choice([None, 1_500_000, 5_000_000, 20_000_000]),
            spread_ns=chance.choice([0, 20_000, 400_000]),
        )
        world = World(chain(count), seed, options)
        tail = f"n{count - 1}"
        requests = []
        for _ in range(chance.randrange(1, 4)):
            number = chance.randrange(1, 6)
            deadline_ns = world.now + chance.choice([100 * SECOND, 20_000_000])
            request = world.create("n0", tail, number, deadline_ns=deadline_ns)
            requests.append((request, number))
            world.run(world.now + chance.randrange(3_000_000))
            if chance.random() < 0.4:
                victim, who = chance.choice(requests)[0], chance.choice(["n0", tail])
                world.at(
                    world.now + chance.randrange(10_000_000),
                    partial(world.cancel_request, who, victim),
                )
        world.run()
        for request, number in requests:
            valid = world.check("n0", tail, request)
            assert world.ending("n0", request), f"seed {seed}: a request does not end"
            both = world.ending("n0", request) == world.ending(tail, request) == "done"
            if both and options.void == 0.0:
                assert valid == number, f"seed {seed}"
        world.check_ledger()


def test_a_discarded_pair_is_made_again_until_the_number_is_reached() -> None:
    world = World(chain(4), 3, Options(cutoff_ns=900_000))
    request = world.create("n0", "n3", 5)
    world.run()
    assert any(record.name == "network.cutoff" for _, record in world.records)
    assert any(isinstance(message, messages.Expire) for *_, message in world.sent)
    assert world.check("n0", "n3", request) == 5
    world.check_ledger()


def test_measure_over_several_links_hands_up_pairs_with_the_basis_of_each_end() -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", 2, kind="measure", basis="X", remote_basis="Z")
    world.run()
    assert world.check("n0", "n2", request) == 2
    assert {pair.basis for pair in world.of("n0", service.EndPair)} == {"X"}
    assert {pair.basis for pair in world.of("n2", service.EndPair)} == {"Z"}


def test_measure_over_one_link_is_read_by_the_link_layer_at_both_ends() -> None:
    world = World(chain(2))
    request = world.create("n0", "n1", 12, kind="measure", basis="X", remote_basis="Z")
    world.run()
    for name, side in (("n0", "head"), ("n1", "tail")):
        measured = world.of(name, service.EndMeasured, request)
        assert [message.pairs for message in measured] == [5, 5, 2]
        assert {message.side for message in measured} == {side}
        assert world.ending(name, request) == "done"


def relay() -> tuple[World, messages.Install, bytes]:
    """The middle of a chain of three with a request open, and no pairs of its own."""
    world = World(chain(3), 0, Options(rate_hz=1e-2))
    request = world.create("n0", "n2", 5, deadline_ns=10**15)
    world.run(world.now + SECOND // 100)
    install = next(m for *_, m in world.sent if isinstance(m, messages.Install))
    return world, install, request


def track(install: messages.Install, pair: bytes, **changes: Any) -> messages.Track:
    values: dict[str, Any] = {
        "circuit": install.circuit, "epoch": install.epoch, "origin": "head",
        "origin_pair": pair, "pair": pair, "x_bit": 1, "z_bit": 0, "request": bytes(16),
    }  # fmt: skip
    return messages.Track(**(values | changes))


def pair_from(world: World, install: messages.Install, peer: str, pair: bytes, bits: int) -> Told:
    qubit = pair[::-1]
    world.qubits.setdefault(qubit, Qubit("n1"))
    return Told(
        "link",
        link.LinkPair(
            request=bytes(16), purpose=install.circuit, peer=peer, pair=pair, qubit=qubit,
            x_bit=bits >> 1, z_bit=bits & 1, emitted_at_ns=world.now, goodness=0.9,
        ),
    )  # fmt: skip


def last_from(world: World, source: str, kind: type[Any]) -> Any:
    sent = reversed(world.sent)
    return next((m for _, s, _, m in sent if s == source and isinstance(m, kind)), None)


@pytest.mark.parametrize("when", ["before the pair", "before the swap", "after the swap"])
def test_track_and_swap_may_come_in_either_order(when: str) -> None:
    world, install, _ = relay()
    world.choose = lambda: (1, 1)
    first, second = b"a" * 8 + b"1" * 8, b"b" * 8 + b"2" * 8

    def send() -> None:
        world.event("n1", FromPeer("n0", track(install, first)))

    if when == "before the pair":
        send()
    world.event("n1", pair_from(world, install, "n0", first, 0b10))
    world.event("n1", pair_from(world, install, "n2", second, 0b01))
    if when == "before the swap":
        send()
    world.run(world.now + 200_000)
    if when == "after the swap":
        send()
    passed = last_from(world, "n1", messages.Track)
    assert isinstance(passed, messages.Track)
    assert (passed.pair, passed.origin_pair) == (second, first)
    assert (passed.x_bit, passed.z_bit) == (1 ^ 1 ^ 0, 0 ^ 1 ^ 1)


def test_track_to_a_pair_that_never_comes_is_expired_and_the_pair_refused_for_good() -> None:
    world, install, _ = relay()
    pair = b"c" * 16
    world.event("n1", FromPeer("n0", track(install, pair)))
    world.run(world.now + EARLY_NS + 1)
    expired = last_from(world, "n1", messages.Expire)
    assert isinstance(expired, messages.Expire)
    assert (expired.origin, expired.origin_pair) == ("head", pair)
    world.event("n1", pair_from(world, install, "n0", pair, 0))
    assert world.qubits[pair[::-1]].owner == "gone"


def test_early_tracks_beyond_the_limit_are_expired_at_once() -> None:
    world, install, _ = relay()
    for index in range(EARLY_TRACKS_MAX):
        world.event("n1", FromPeer("n0", track(install, index.to_bytes(16, "big"))))
    assert last_from(world, "n1", messages.Expire) is None
    world.event("n1", FromPeer("n0", track(install, b"z" * 16)))
    assert last_from(world, "n1", messages.Expire).origin_pair == b"z" * 16


def test_the_history_of_pairs_is_bounded() -> None:
    world, install, _ = relay()
    for index in range(PAIR_HISTORY_MAX + 50):
        pair = b"pair" + index.to_bytes(12, "big")
        world.event("n1", pair_from(world, install, "n0", pair, 0))
        void = link.LinkExpired(pair=pair, purpose=install.circuit)
        world.event("n1", Told("link", void))
    tracker = world.nodes["n1"]._trackers[install.circuit]
    assert len(tracker._pairs) <= PAIR_HISTORY_MAX + 1


@pytest.mark.parametrize(
    ("changes", "peer", "name"),
    [
        ({"origin": "tail"}, "n0", "INVALID"),
        ({"epoch": 99}, "n0", "OUT_OF_STATE"),
        ({}, "n2", "INVALID"),
    ],
)
def test_a_track_that_cannot_be_is_answered_with_an_error(
    changes: dict[str, Any], peer: str, name: str
) -> None:
    world, install, _ = relay()
    world.event("n1", FromPeer(peer, track(install, b"d" * 16, **changes)))
    error = last_from(world, "n1", messages.Error)
    assert isinstance(error, messages.Error)
    assert (error.name, error.about) == (name, messages.Track.TYPE)


def test_a_second_track_for_a_pair_is_an_error_and_changes_nothing() -> None:
    world, install, _ = relay()
    pair = b"e" * 16
    world.event("n1", pair_from(world, install, "n0", pair, 0))
    world.event("n1", FromPeer("n0", track(install, pair)))
    world.event("n1", FromPeer("n0", track(install, pair)))
    assert last_from(world, "n1", messages.Error).name == "OUT_OF_STATE"


def test_a_pair_void_after_its_swap_is_told_to_both_ends() -> None:
    world, install, _ = relay()
    first, second = b"f" * 16, b"g" * 16
    world.event("n1", pair_from(world, install, "n0", first, 0))
    world.event("n1", pair_from(world, install, "n2", second, 0))
    world.run(world.now + 200_000)
    world.event("n1", FromPeer("n0", track(install, first)))
    back = track(install, second, origin="tail", request=None)
    world.event("n1", FromPeer("n2", back))
    void = link.LinkExpired(pair=first, purpose=install.circuit)
    world.event("n1", Told("link", void))
    expired = [m for _, s, _, m in world.sent if s == "n1" and isinstance(m, messages.Expire)]
    assert [(m.origin, m.origin_pair) for m in expired] == [("head", first), ("tail", second)]


def test_a_failed_swap_discards_both_pairs() -> None:
    world, install, _ = relay()
    world.options.swap_failure = 1.0
    first, second = b"h" * 16, b"i" * 16
    world.event("n1", pair_from(world, install, "n0", first, 0))
    world.event("n1", pair_from(world, install, "n2", second, 0))
    world.run(world.now + 200_000)
    world.event("n1", FromPeer("n0", track(install, first)))
    assert last_from(world, "n1", messages.Expire) is not None
    world.check_ledger()


def test_answers_to_unknown_calls_and_pairs_of_unknown_circuits_are_harmless() -> None:
    world, install, _ = relay()
    world.event("n1", Told("physical", physical.BellMeasured(call=99, x_bit=0, z_bit=0)))
    world.event("n1", Told("physical", physical.CallFailed(call=99, error="GONE", detail="")))
    world.event("n1", Told("link", link.LinkExpired(pair=bytes(16), purpose=bytes(16))))
    told = pair_from(world, install, "n0", b"j" * 16, 0)
    assert isinstance(told.message, link.LinkPair)
    other = link.LinkPair(
        request=bytes(16), purpose=b"k" * 16, peer="n0", pair=b"j" * 16,
        qubit=told.message.qubit, x_bit=0, z_bit=0, emitted_at_ns=0, goodness=0.9,
    )  # fmt: skip
    world.event("n1", Told("link", other))
    world.check_ledger()


@pytest.mark.parametrize("name", ["n0", "n2"])
def test_a_confirmed_pair_that_becomes_void_at_one_end_expires_at_both(name: str) -> None:
    world = World(chain(3))
    request = world.create("n0", "n2", 1)
    world.run()
    (told,) = [
        m for _, s, _, m in world.sent if s == name and isinstance(m, messages.Track)
    ]  # fmt: skip
    void = link.LinkExpired(pair=told.origin_pair, purpose=told.circuit)
    world.event(name, Told("link", void))
    world.run(world.now + SECOND // 100)
    for end in ("n0", "n2"):
        (expired,) = world.of(end, service.EndPairExpired, request)
        assert expired.pair == world.of(end, service.EndPair, request)[0].pair


def test_pairs_that_wait_are_freed_at_once_when_the_last_request_ends() -> None:
    world, install, request = relay()
    world.event("n1", pair_from(world, install, "n0", b"k" * 16, 0))
    start = world.now
    world.cancel_request("n0", request)
    world.run(start + world.delays[frozenset(("n0", "n1"))])
    world.check_ledger()


def test_the_oldest_pairs_are_swapped_first() -> None:
    world, install, _ = relay()
    for pair in (b"l" * 16, b"m" * 16):
        world.event("n1", pair_from(world, install, "n0", pair, 0))
    world.event("n1", pair_from(world, install, "n2", b"n" * 16, 0))
    assert world.qubits[b"l" * 16].owner == "gone"
    assert world.qubits[b"m" * 16].owner == "network"
