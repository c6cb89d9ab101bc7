"""Whole runs: equal keys, what is said of them, and in which order things become known.

Runs have fixed seeds; each check of chance in a run has a false-alarm probability below 1e-9.
"""

import msgspec
import numpy as np
import pytest

from qstack.apps.qkd import events, messages
from qstack.apps.qkd.alice import Alice
from qstack.apps.qkd.events import EMULATED, REPRODUCIBLE
from qstack.apps.qkd.finite_key import BOUND, binary_entropy, key_length
from qstack.apps.qkd.parameters import ParametersError, planned
from qstack.apps.qkd.parity_tree import Schedule
from qstack.apps.qkd.sifting import SystemGenerator
from tests.apps.qkd.world import SMALL, Source, World, secrets_of

GOOD = World().run()


def test_both_ends_get_the_same_key_of_the_length_declared():
    alice, bob = GOOD.keys["alice"], GOOD.keys["bob"]
    assert alice.secret == bob.secret
    rows = [row.key_bits for row in SMALL.grid]
    assert alice.metadata.key_bits == bob.metadata.key_bits in rows
    assert len(alice.secret) == -(-alice.metadata.key_bits // 8)
    assert alice.metadata.id == bob.metadata.id


def test_the_figures_are_those_of_the_run_and_of_the_formula():
    for role in ("alice", "bob"):
        metadata = GOOD.keys[role].metadata
        figures = metadata.figures
        assert (figures.n, figures.k, figures.pairs) == (SMALL.n, SMALL.k, SMALL.pairs)
        assert figures.sifted_bits >= SMALL.n + SMALL.k
        assert 0.003 < figures.qber_x < 0.02
        assert 0.003 < figures.qber_z < 0.02
        assert figures.efficiency == figures.leak_bits / (SMALL.n * binary_entropy(figures.qber_z))
        assert figures.efficiency >= 1
        assert figures.bound == BOUND
        assert (figures.eps_sec, figures.eps_cor) == (1e-10, 1e-15)
        assert 0 < figures.eps_auth < 1e-20
        limit = key_length(
            n=figures.n, k=figures.k, errors=round(figures.qber_x * figures.k),
            leak=figures.leak_bits, tag=figures.tag_bits, eps_sec=figures.eps_sec,
        )  # fmt: skip
        assert 0 < figures.key_bits <= limit
    assert GOOD.keys["alice"].metadata.figures == GOOD.keys["bob"].metadata.figures


def test_a_key_says_where_it_is_from():
    metadata = GOOD.keys["bob"].metadata
    assert (metadata.origin, metadata.note) == (EMULATED, REPRODUCIBLE)
    assert (metadata.origin, metadata.note) == ("emulated", "reproducible, not secret")
    assert (metadata.network, metadata.here, metadata.peer) == ("test", "leiden", "delft")
    unseeded = World(is_seeded=False).run()
    assert unseeded.keys["alice"].metadata.note == ""


def test_one_seeded_end_makes_the_key_no_secret_at_both():
    run = World(is_seeded=False)
    run.ends["alice"] = Alice(
        parameters=SMALL, secret=secrets_of()["alice"], generator=SystemGenerator(), is_seeded=True
    )
    run.run()
    assert [key.metadata.note for key in run.keys.values()] == [REPRODUCIBLE] * 2


def test_runs_with_equal_seeds_are_equal_and_others_are_not():
    again, other = World().run(), World(seed=1).run()
    assert again.keys["bob"].secret == GOOD.keys["bob"].secret
    assert other.keys["bob"].secret != GOOD.keys["bob"].secret
    # The same seeds with the next pads: another session, so that nothing can be replayed.
    later = World(secrets=secrets_of(used=(1, 1))).run()
    assert later.keys["bob"].metadata.id != GOOD.keys["bob"].metadata.id


def test_the_operating_systems_entropy_does_as_well():
    run = World()
    run.ends["alice"] = Alice(
        parameters=SMALL, secret=secrets_of()["alice"], generator=SystemGenerator()
    )
    run.run()
    assert run.keys["alice"].secret == run.keys["bob"].secret


def test_progress_goes_forward_at_both_ends():
    for role in ("alice", "bob"):
        said = [p.fraction for who, p in GOOD.progress if who == role]
        assert said == sorted(said)
        assert said[-1] == 1.0


def test_bases_before_outcomes_before_parities_before_hash_before_tags_before_seed():
    names = GOOD.names()
    order = [("bob", "PairsMeasured"), ("alice", "Bases"), ("bob", "Bases"), ("bob", "XOutcomes"),
             ("alice", "XOutcomes"), ("alice", "Reconcile"), ("bob", "BlocksQuery"),
             ("alice", "Parities"), ("bob", "Corrected"), ("alice", "Verify"), ("bob", "Verified"),
             ("bob", "TranscriptTag"), ("alice", "TranscriptTag"), ("alice", "Seed"),
             ("alice", "Release"), ("bob", "Confirm"), ("alice", "Confirm")]  # fmt: skip
    places = [names.index(name) for name in order]
    assert places == sorted(places)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_no_basis_is_said_before_both_have_measured_whoever_is_first(first):
    run = World()
    for role in ("bob", "alice"):
        run.event(role, events.Begin())
    while run.wire:
        to, data = run.wire.popleft()
        run.event(to, events.Received(data))
    need = run.needs[first]
    outcomes = run.rng.integers(0, 2, need.pairs, dtype=np.uint8)
    run.event(first, events.Measured(run.draw(first), outcomes))
    while run.wire:
        to, data = run.wire.popleft()
        run.event(to, events.Received(data))
    assert not [name for _, name in run.names() if name == "Bases"]


def test_further_passes_are_made_where_the_hash_finds_a_difference():
    # Three passes leave errors in one block of ten or so.
    short = msgspec.structs.replace(SMALL, schedule=Schedule(passes=3))
    most = 0
    for seed in range(12):
        run = World(parameters=short, source=Source(0.02, 0.005), seed=seed).run()
        unverified = run.names().count(("bob", "Unverified"))
        most = max(most, unverified)
        assert run.keys["alice"].secret == run.keys["bob"].secret
        assert run.keys["alice"].metadata.figures.tag_bits == 128 * (1 + unverified)
    assert most >= 1


def test_long_arrays_travel_in_parts():
    many = planned(2 * messages.PART_BITS + 100, 0.5, tolerated_errors=(0.05,))
    run = World(parameters=many).run()
    assert run.keys["alice"].secret == run.keys["bob"].secret
    assert run.names().count(("alice", "Bases")) == 3


def test_bases_are_drawn_with_the_share_that_was_agreed():
    biased = planned(60_000, 0.25)
    run = World(parameters=biased).run()
    assert run.keys["alice"].metadata.figures.n > 4 * run.keys["alice"].metadata.figures.k
    assert run.keys["alice"].secret == run.keys["bob"].secret


def test_counting_both_ways_doubles_what_is_counted():
    both = planned(60_000, 0.5, leak="both")
    run = World(parameters=both).run()
    figures = run.keys["alice"].metadata.figures
    parities = sum(m.count for _, m in run.sent if isinstance(m, messages.Parities))
    assert figures.leak_bits == 2 * parities


def test_ends_whose_secrets_got_out_of_step_use_the_later_pads():
    run = World(secrets=secrets_of(used=(3, 7))).run()
    assert [key.metadata.attempt for key in run.keys.values()] == [7, 7]
    assert all(run.secrets[role].next_attempt == 8 for role in ("alice", "bob"))


def test_no_run_is_made_with_parameters_that_cannot_be():
    wrong = msgspec.structs.replace(SMALL, k=1)
    with pytest.raises(ParametersError):
        World(parameters=wrong)


def test_nothing_that_is_printed_shows_a_key_or_an_outcome():
    key = GOOD.keys["alice"]
    measured = events.Measured(np.zeros(9, dtype=np.uint8), np.ones(9, dtype=np.uint8))
    shown = [repr(key), str(key), repr(key.metadata), repr(measured), repr(GOOD.ends["alice"]),
             repr(events.Send(key.secret)), *(repr(p) for _, p in GOOD.progress)]  # fmt: skip
    for text in shown:
        assert key.secret[:4].hex() not in text
        assert repr(key.secret)[2:12] not in text
        assert "array" not in text


def test_the_bits_of_a_run_are_wiped_at_its_end():
    for end in GOOD.ends.values():
        assert not end._key_bits.any()
        assert not end._outcomes.any()
        assert end._key == b""
