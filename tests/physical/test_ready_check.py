"""A device that checks itself before it attempts: attempts begin later, nothing else changes."""

import math

import numpy as np
import pytest

from qstack.physical.check.report import check_driver
from qstack.physical.device import BatchEnded, Generate, Initialise, Reply, StopGenerate
from qstack.physical.emulated import EmulatedDevice
from qstack.physical.fabric import Fabric
from qstack.physical.profile import ProfileError, parse_profile
from qstack.physical.profiles import packaged_profile
from tests.physical.worlds import chain, started_fabric

TRY_NS = 50_000
PASS = 0.2
CHECKED = (
    f'\n[ready_check_ns]\nvalue = {TRY_NS}\nsource = "test"\nmark = "assumed"\n'
    f'[ready_check_pass]\nvalue = {PASS}\nsource = "test"\nmark = "assumed"\n'
)


def begun(
    seed: int,
    probability: float = 1.0,
    until_ns: int = 10**10,
    is_busy: bool = False,
) -> tuple[Fabric, list[Reply]]:
    """Attempts at both ends from time 0, the far end's check apart from this one's."""
    world = chain("ab", probability, ready_check_ns=TRY_NS, ready_check_pass=PASS)
    fabric = started_fabric(world, seed)
    if is_busy:
        fabric.apply("a", Initialise(at_ns=0, sequence=0, qubit=b"q" * 16))
    for node in "ab":
        fabric.apply(
            node,
            Generate(
                at_ns=0, sequence=1, batch=1, link="a-b", token=bytes(16), kind="keep",
                first_cycle=0, bright_state=None, pairs=1, basis=None, qubit=node.encode() * 16,
            ),
        )  # fmt: skip
    said = [delivery.message for delivery in fabric.run(until_ns)]
    return fabric, [message for message in said if isinstance(message, Reply)]


def test_attempts_begin_when_both_ends_have_passed_their_check() -> None:
    """The later of two geometric numbers of tries; mean within 4.9 sigma: false alarm 1e-6."""
    link = chain("ab").links["a-b"]
    world = chain("ab")
    cycle_ns = link.cycle_ns("keep", *world.end_profiles("a-b"))
    samples = 600
    tries = []
    for seed in range(samples):
        _, (reply, other) = begun(seed)
        assert reply.cycle == other.cycle
        start_ns = (reply.cycle - 1) * cycle_ns  # the cycle before had begun when it passed
        tries.append(math.ceil(start_ns / TRY_NS) if start_ns > 0 else 1)
    rng = np.random.default_rng(1)
    drawn = rng.geometric(PASS, (2, 200_000)).max(axis=0)
    deviation = drawn.std() / math.sqrt(samples)
    assert abs(np.mean(tries) - drawn.mean()) < 4.9 * deviation + 0.1  # 0.1: cycles are rounded


def test_a_stop_during_the_check_ends_the_batch_without_an_attempt() -> None:
    fabric, _ = begun(1, until_ns=1)
    stop = StopGenerate(at_ns=TRY_NS - 1, sequence=2, batch=1, reason="stopped")
    fabric.apply("a", stop)
    said = [(delivery.node, delivery.message) for delivery in fabric.run(10**9)]
    assert said == [("a", BatchEnded(batch=1, reason="stopped", attempts=0))]


def test_a_check_depends_on_its_batch_alone() -> None:
    _, quiet = begun(5)
    _, busy = begun(5, is_busy=True)
    assert quiet == busy


def test_a_profile_has_both_numbers_or_none() -> None:
    profile = parse_profile(packaged_profile("bench") + CHECKED, where="test")
    assert (profile.ready_check_ns, profile.ready_check_pass) == (TRY_NS, PASS)
    assert profile.provenance["ready_check_ns"].mark == "assumed"
    with pytest.raises(ProfileError, match="one without the other"):
        parse_profile(
            packaged_profile("bench") + CHECKED.partition("[ready_check_pass]")[0], where="t"
        )


def test_a_device_that_checks_itself_passes_the_checks_that_can_be_made() -> None:
    profile = parse_profile(packaged_profile("bench") + CHECKED, where="test")
    verdicts = list(check_driver(EmulatedDevice, profile))
    assert [each.check for each in verdicts if each.verdict != "passed"] == [
        "success probability of kept pairs",
        "success probability of measured pairs",
    ]
    assert "failed" not in {each.verdict for each in verdicts}
