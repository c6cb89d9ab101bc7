"""The independent expectation: closed forms, explicit matrices, a second event loop, wrong models.

Statistical limits are 4.9 standard errors: a false alarm in 1e-6 (two-sided), seeds are fixed.
"""

import ast
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from qstack.cli.demo import expectation, expectation_states, expectation_timing
from qstack.cli.demo.expectation import (
    direct_transmission_hz,
    expect_pairs,
    expect_teleports,
)
from qstack.cli.demo.expectation_chain import NoExpectationError, chain_timing, find_chain
from qstack.cli.demo.expectation_states import Pairs
from qstack.cli.demo.expectation_timing import NEVER_NS, ChainTiming, LinkTiming, deliver
from qstack.runtime.network_file import load_packaged_network
from tests.cli.expectation_cases import (
    ORACLES,
    PERFECT,
    SIGMAS,
    metro,
    metro_pairs,
    sigmas,
    with_profile,
    with_repeater_memory,
)

# --- timing --------------------------------------------------------------------------------------

CYCLE_NS = 1000


def simple_chain(links: int, probability: float, cutoff_cycles: float = math.inf) -> ChainTiming:
    """Equal links whose heralds, swaps and messages fit into the cycle of the attempt."""
    cutoff = NEVER_NS // 4 if math.isinf(cutoff_cycles) else round(cutoff_cycles * CYCLE_NS)
    link = LinkTiming(probability, CYCLE_NS, 10, 20, 20, 5)
    return ChainTiming(links=(link,) * links, swap_ns=(3,) * (links - 1), cutoff_ns=cutoff)


def played(chain: ChainTiming, pairs: int, replicas: int, seed: int = 1) -> Any:
    begin = np.zeros((chain.length, replicas), dtype=np.int64)
    return deliver(chain, begin, pairs=pairs, generator=np.random.default_rng(seed))


def test_certain_links_are_timed_to_the_nanosecond() -> None:
    links = (LinkTiming(1.0, 1000, 10, 21, 22, 5), LinkTiming(1.0, 600, 7, 31, 32, 9))
    done = played(ChainTiming(links=links, swap_ns=(300,), cutoff_ns=10**6), 2, 2)
    # emitted at 10 and 7, known at the repeater at 32 and 38: swap 38 to 338; again from 1000, 600
    assert done.emitted_at_ns[0].tolist() == [[10, 7], [1010, 607]]
    assert done.swapped_at_ns[0].tolist() == [[38], [1032]]
    # TRACK of the tail: known 39, at the repeater 48, on at 338; of the head: 31, 36, on at 338
    assert done.head_at_ns[0].tolist() == [338 + 5, 1332 + 5]
    assert done.tail_at_ns[0].tolist() == [338 + 9, 1332 + 9]
    assert done.discards.tolist() == [0, 0]


def test_a_waiting_pair_is_discarded_at_the_cutoff_and_its_place_is_free_at_once() -> None:
    links = (LinkTiming(1.0, 1000, 10, 21, 22, 5), LinkTiming(1.0, 9000, 7, 31, 32, 9))
    begin = np.array([[0, 0], [1, 1]])  # the second link's first attempt is at 9000
    chain = ChainTiming(links=links, swap_ns=(300,), cutoff_ns=4000)
    done = deliver(chain, begin, pairs=1, generator=np.random.default_rng(1))
    # the first link's pairs of 10 and 5010 live until 4010 and 9010; the other is known at 9038
    assert done.emitted_at_ns[0].tolist() == [[10_010, 9007]]
    assert done.discards.tolist() == [2, 2]


def test_a_pair_the_head_gave_to_no_request_is_swapped_but_not_delivered() -> None:
    chain = simple_chain(3, 1.0, 4.5)
    begin = np.array([[0, 0], [0, 0], [5000, 5000]])
    done = deliver(chain, begin, pairs=1, generator=np.random.default_rng(1))
    # The segment of 10 is void at 4510. The head had a pair of 1010 meanwhile, too many for one
    # request: it is swapped at 5030 at both repeaters, for nobody. The next is of 6010.
    assert done.emitted_at_ns[0].tolist() == [[6010, 6010, 6010]]
    two = deliver(chain, begin, pairs=2, generator=np.random.default_rng(1))
    assert two.emitted_at_ns[0].tolist() == [[1010, 5010, 5010], [6010, 6010, 6010]]
    assert two.discards.tolist() == [1, 1]


def test_one_link_attempts_in_every_cycle() -> None:
    done = played(simple_chain(1, 1.0), 3, 2)
    assert done.emitted_at_ns[0, :, 0].tolist() == [10, 1010, 2010]
    assert done.head_at_ns[0].tolist() == [35, 1035, 2035]


@pytest.mark.parametrize(
    ("links", "p"), [pytest.param(2, 0.1, marks=pytest.mark.soak), (3, 0.1), (4, 0.01)]
)
def test_the_first_pair_waits_for_the_slowest_link(links: int, p: float) -> None:
    done = played(simple_chain(links, p), 1, 20_000)
    cycles = (done.emitted_at_ns.max(axis=2)[:, 0] - 10) / CYCLE_NS + 1
    exact = sum(
        (-1) ** (k + 1) * math.comb(links, k) / (1 - (1 - p) ** k) for k in range(1, links + 1)
    )
    if f"emax_{links}_{p}" in ORACLES:
        wanted = ORACLES[f"emax_{links}_{p}"]["expected"]["E_max"]
        assert exact == pytest.approx(wanted, rel=1e-9)
    assert sigmas(cycles.mean(), cycles.std() / math.sqrt(len(cycles)), exact) < SIGMAS


@pytest.mark.parametrize("name", [name for name in ORACLES if name.startswith("cutoff_parallel")])
def test_two_links_with_a_cutoff_give_the_oracle(name: str) -> None:
    asked, wanted = ORACLES[name]["inputs"], ORACLES[name]["expected"]
    pairs, replicas = 50, 400
    done = played(simple_chain(2, asked["p"], asked["m"] + 0.5), pairs, replicas)
    cycles = ((done.emitted_at_ns[:, -1].max(axis=1) - 10) / CYCLE_NS + 1) / pairs
    waits = np.abs(done.emitted_at_ns[..., 0] - done.emitted_at_ns[..., 1]) / CYCLE_NS
    decay = np.exp(-waits / asked["T"]).mean(axis=1)
    for values, exact in ((cycles, wanted["E_attempts"]), (decay, wanted["mean_decay"])):
        assert sigmas(values.mean(), values.std() / math.sqrt(replicas), exact) < SIGMAS


class Words:
    """One request over three links a, b, c, told event by event.

    Repeater 1 has the places L1 and R1, repeater 2 L2 and R2.
    """

    SIDES: ClassVar = {"a": ("L1",), "b": ("R1", "L2"), "c": ("R2",)}

    def __init__(self, chain: ChainTiming, rng: Any) -> None:
        self.chain, self.rng = chain, rng
        self.timing = dict(zip("abc", chain.links, strict=True))
        self.free_ns = {"L1": 0, "R1": 0, "L2": 0, "R2": 0}
        self.holds: dict[str, str] = {}  # the link of the pair in (or on its way to) each place
        self.emitted_ns: dict[str, int] = {}
        for link in "abc":
            self.make(link)

    def make(self, link: str) -> None:
        one = self.timing[link]
        start = max(self.free_ns[side] for side in self.SIDES[link])
        cycle = -(-start // one.cycle_ns) + int(self.rng.geometric(one.success_probability)) - 1
        self.emitted_ns[link] = cycle * one.cycle_ns + one.emission_offset_ns
        for side in self.SIDES[link]:
            self.holds[side] = link

    def release(self, side: str, when_ns: int) -> None:
        link = self.holds.pop(side)
        self.free_ns[side] = when_ns
        if not any(other in self.holds for other in self.SIDES[link]):
            self.make(link)

    def swap_ns(self, repeater: str) -> int:
        left, right = "L" + repeater, "R" + repeater
        if left not in self.holds or right not in self.holds:
            return NEVER_NS
        here, there = self.holds[left], self.holds[right]
        return max(
            self.emitted_ns[here] + self.timing[here].right_herald_ns,
            self.emitted_ns[there] + self.timing[there].left_herald_ns,
        )

    def cut_ns(self, link: str) -> int:
        is_waiting = any(side in self.holds for side in self.SIDES[link])
        return self.emitted_ns[link] + self.chain.cutoff_ns if is_waiting else NEVER_NS

    def run(self, pairs: int) -> tuple[int, int]:
        """The end of the last pair's last swap, and how many pairs were discarded before it."""
        delivered = discards = 0
        is_half_joined = False  # the pair of the middle link was swapped on one side
        while True:
            swap, repeater = min((self.swap_ns(name), name) for name in "12")
            cut, link = min((self.cut_ns(name), name) for name in "abc")
            if cut < swap:
                discards += 1
                is_half_joined = is_half_joined and link != "b"
                for side in self.SIDES[link]:
                    if side in self.holds:
                        self.release(side, cut)
                continue
            done = swap + self.chain.swap_ns[int(repeater) - 1]
            self.release("L" + repeater, done)
            self.release("R" + repeater, done)
            delivered += is_half_joined
            is_half_joined = not is_half_joined
            if delivered == pairs:
                return done, discards


def test_metro_agrees_with_an_event_loop_written_in_words() -> None:
    chain = chain_timing(find_chain(metro(), "alice", "bob"))
    pairs, runs = 40, 150
    rng = np.random.default_rng(11)
    told = np.array([Words(chain, rng).run(pairs) for _ in range(runs)])
    done = played(chain, pairs, 1000, seed=12)
    last_swap = done.swapped_at_ns[:, -1].max(axis=1) + chain.swap_ns[0]
    for plain, fast in ((told[:, 0], last_swap), (told[:, 1], done.discards)):
        spread = math.hypot(plain.std() / math.sqrt(runs), fast.std() / math.sqrt(len(fast)))
        assert sigmas(plain.mean(), spread, fast.mean()) < SIGMAS


# --- whole expectations --------------------------------------------------------------------------


def test_perfect_memories_give_the_noisy_swap_product() -> None:
    link, p2, right = 0.95, 0.03, 0.985
    emission = (1.0 + 3.0 * math.sqrt((4.0 * link - 1.0) / 3.0)) / 4.0
    changes = {
        **PERFECT,
        "emission_fidelity": emission,
        "gate_2q_depolarising": p2,
        "readout_f0": right,
        "readout_f1": right,
    }
    network = with_profile(metro(), **changes)
    expected = expect_pairs(network, "alice", "bob", pairs=20, replicas=20)
    # a misread bit flips XX, the other ZZ, either of them YY
    flips = ((1 - p2) * (2 * right - 1)) ** 2, ((1 - p2) * (2 * right - 1) ** 2) ** 2
    exact = (1.0 + (2.0 * flips[0] + flips[1]) * ((4.0 * link - 1.0) / 3.0) ** 3) / 4.0
    assert expected.state_fidelity == pytest.approx(exact, abs=1e-12)
    seen = (2.0 * right - 1.0) ** 2
    assert expected.fidelity == pytest.approx((1.0 + seen * (4.0 * exact - 1.0)) / 4.0, abs=1e-12)


def test_one_link_gives_its_state_after_the_known_wait() -> None:
    network = with_profile(
        load_packaged_network("pair"),
        dark_count_probability=0.0,
        gate_1q_depolarising=0.0,
        readout_f0=1.0,
        readout_f1=1.0,
    )
    expected = expect_pairs(network, "alice", "bob", pairs=5, replicas=4)
    light_ns = round(10_000 * 1.468 / 299_792_458 * 1e9)
    wait_s = (2 * light_ns + 2 * 10_000 + 30_000) * 1e-9  # herald, TRACK, two events, one call
    exact = (1.0 + 1.0 + 2.0 * 0.95 * math.exp(-2.0 * wait_s / 1.0)) / 4.0
    assert expected.fidelity == pytest.approx(exact, abs=1e-7)
    assert expected.discards_per_pair == 0.0


def test_one_link_takes_the_geometric_time() -> None:
    expected = expect_pairs(load_packaged_network("pair"), "alice", "bob")
    link = chain_timing(find_chain(load_packaged_network("pair"), "alice", "bob")).links[0]
    exact_s = link.cycle_ns / link.success_probability * 1e-9
    assert sigmas(expected.pair_interval_s, expected.pair_interval_se_s, exact_s) < SIGMAS


def test_metro_is_near_the_physics_document() -> None:
    expected = metro_pairs()
    assert expected.pair_interval_s == pytest.approx(0.113, rel=0.02)
    assert expected.discards_per_pair == pytest.approx(0.75, abs=0.08)
    assert expected.fidelity_sd_pair == pytest.approx(0.030, abs=0.003)
    without_gate_noise = with_profile(metro(), gate_1q_depolarising=0.0)
    plain = expect_pairs(without_gate_noise, "alice", "bob", replicas=50)
    assert plain.state_fidelity == pytest.approx(0.836, abs=0.008)


def test_the_statistical_error_is_below_a_thousandth() -> None:
    assert metro_pairs().fidelity_se < 0.001
    assert (
        sigmas(
            metro_pairs().fidelity,
            metro_pairs().fidelity_se,
            metro_pairs(2).fidelity,
            metro_pairs(2).fidelity_se,
        )
        < SIGMAS
    )


def test_the_seed_decides_everything() -> None:
    def twice(seed: int) -> Any:
        few = {"replicas": 5, "seed": seed}
        return (
            expect_pairs(metro(), "alice", "bob", pairs=10, **few),
            expect_teleports(metro(), "alice", "bob", **few),
        )

    assert twice(7) == twice(7)
    assert twice(7)[0] != twice(8)[0]
    assert twice(7)[1] != twice(8)[1]


def test_both_directions_agree() -> None:
    back = expect_pairs(metro(), "bob", "alice", replicas=100)
    there = metro_pairs()
    assert sigmas(back.fidelity, back.fidelity_se, there.fidelity, there.fidelity_se) < SIGMAS


# --- models that are wrong on purpose ------------------------------------------------------------


def test_the_root_of_the_visibility_is_found_out() -> None:
    wrong = expect_pairs(
        with_profile(metro(), visibility=math.sqrt(0.95)), "alice", "bob", replicas=50
    )
    right = metro_pairs()
    assert sigmas(wrong.fidelity, wrong.fidelity_se, right.fidelity, right.fidelity_se) > SIGMAS


def test_missing_readout_errors_are_found_out() -> None:
    wrong = expect_pairs(
        with_profile(metro(), readout_f0=1.0, readout_f1=1.0), "alice", "bob", replicas=50
    )
    right = metro_pairs()
    assert sigmas(wrong.fidelity, wrong.fidelity_se, right.fidelity, right.fidelity_se) > SIGMAS


def test_phi_for_psi_is_found_out_where_damping_tells_them_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = with_profile(metro(), t1_s=0.5)
    right = expect_pairs(network, "alice", "bob", replicas=50)
    real = expectation_states.fresh

    def phi(*arguments: Any) -> Pairs:
        pairs = real(*arguments)
        return replace(pairs, yy=-pairs.yy, zz=-pairs.zz, x_bits=~pairs.x_bits)

    monkeypatch.setattr(expectation, "fresh", phi)
    wrong = expect_pairs(network, "alice", "bob", replicas=50)
    assert sigmas(wrong.fidelity, wrong.fidelity_se, right.fidelity, right.fidelity_se) > SIGMAS


def test_phi_announced_as_psi_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = expectation_states.fresh

    def misnamed(*arguments: Any) -> Pairs:
        pairs = real(*arguments)
        return replace(pairs, x_bits=~pairs.x_bits)

    monkeypatch.setattr(expectation, "fresh", misnamed)
    wrong = expect_pairs(metro(), "alice", "bob", pairs=20, replicas=10)
    assert wrong.fidelity < 0.25


# --- teleportation -------------------------------------------------------------------------------


def test_perfect_hardware_teleports_perfectly() -> None:
    expected = expect_teleports(with_profile(metro(), **PERFECT), "alice", "bob", replicas=50)
    assert expected.fidelity == pytest.approx(1.0, abs=1e-12)
    assert expected.pair_fidelity == pytest.approx(1.0, abs=1e-12)
    assert expected.ideal == pytest.approx(1.0, abs=1e-12)


def test_only_the_pair_imperfect_gives_two_f_and_one_over_three() -> None:
    network = with_profile(metro(), **{**PERFECT, "visibility": 0.8})
    expected = expect_teleports(network, "alice", "bob", replicas=50)
    assert expected.pair_fidelity == pytest.approx((1.0 + 1.0 + 2.0 * 0.8**3) / 4.0, abs=1e-12)
    assert expected.fidelity == pytest.approx(expected.ideal, abs=1e-12)


def test_preparation_and_readout_errors_count() -> None:
    changes = {**PERFECT, "init_fidelity": 0.97, "readout_f0": 0.96, "readout_f1": 0.96}
    one = with_profile(load_packaged_network("pair"), **changes)
    expected = expect_teleports(one, "alice", "bob", replicas=10)
    # the head's Bell measurement misreads one bit for X and Z, either of two for Y
    contrast, length = 2 * 0.96 - 1.0, 2 * 0.97 - 1.0
    kept = (2.0 * contrast + contrast**2) / 3.0
    assert expected.fidelity == pytest.approx((1.0 + length * kept * contrast) / 2.0, abs=1e-12)


def test_a_teleport_waits_in_memory_and_beats_the_classical_bound() -> None:
    expected = expect_teleports(metro(), "alice", "bob")
    assert expected.classical_bound == pytest.approx(2.0 / 3.0)
    assert expected.fidelity - SIGMAS * expected.fidelity_se > expected.classical_bound
    assert expected.fidelity + SIGMAS * expected.fidelity_se < expected.ideal
    assert expected.fidelity_se < 0.001


# --- direct transmission and what is refused -----------------------------------------------------


def test_direct_transmission_is_the_fibre_and_the_source() -> None:
    exact_hz = 0.111 * 10.0 ** (-0.2 * 50 / 10.0) / 51e-6
    assert direct_transmission_hz(metro(), "alice", "bob") == pytest.approx(exact_hz)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: with_profile(metro(), attempt_dephasing=0.001), "disturb"),
        (lambda: with_profile(metro(), comm_qubits=2), "storage"),
        (lambda: with_profile(metro(), parallel_links=False), "take turns"),
        (lambda: with_profile(with_repeater_memory(5), comm_qubits=8), "more than one place"),
        (lambda: msgspec.structs.replace(metro(), cutoff_ns=None), "cutoff"),
    ],
)
def test_what_has_no_model_is_refused(network: Any, words: str) -> None:
    for expect in (expect_pairs, expect_teleports):
        with pytest.raises(NoExpectationError, match=words):
            expect(network(), "alice", "bob")


def test_the_caller_may_give_the_cutoff() -> None:
    network = msgspec.structs.replace(metro(), cutoff_ns=None)
    given = expect_pairs(network, "alice", "bob", pairs=5, replicas=5, cutoff_ns=metro().cutoff_ns)
    assert given == expect_pairs(metro(), "alice", "bob", pairs=5, replicas=5)


def test_ends_without_a_chain_between_them_are_refused() -> None:
    links = {name: link for name, link in metro().links.items() if "bob" not in link.ends}
    broken = msgspec.structs.replace(metro(), links=links)
    for network, tail, words in (
        (metro(), "carol", "carol"),
        (metro(), "alice", "no chain"),
        (broken, "bob", "no chain"),
    ):
        with pytest.raises(NoExpectationError, match=words):
            direct_transmission_hz(network, "alice", tail)


@pytest.mark.parametrize(("pairs", "replicas"), [(0, 10), (10, 1)])
def test_too_few_pairs_or_replicas_are_refused(pairs: int, replicas: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        expect_pairs(metro(), "alice", "bob", pairs=pairs, replicas=replicas)


def test_no_code_is_shared_with_what_is_predicted() -> None:
    shared = {"qstack.physical.hardware", "qstack.physical.profile", "qstack.runtime.network_file"}
    folder = Path(expectation_timing.__file__).parent
    files = sorted(folder.glob("expectation*.py"))
    assert len(files) == 4
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qstack"):
                own = (node.module or "").startswith("qstack.cli.demo.expectation")
                assert own or node.module in shared, f"{file.name} imports {node.module}"
