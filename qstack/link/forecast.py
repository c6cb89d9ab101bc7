"""How long a request will take, and whether it can be had before its deadline.

With the link for itself and every slot at work: what is refused here cannot be had whatever
else the link does. (min_time > max_time gives UNSUPP in the draft; the registry has NO_TIME.)
"""

from qstack.link.params import LATENESS_MAX
from qstack.link.peer import Peer
from qstack.physical.service import AttemptKind, GenerationOption


def shortest_ns(peer: Peer, option: GenerationOption, kind: AttemptKind, number: int) -> int:
    """When every attempt succeeds."""
    return -(-number // _at_once(peer, kind)) * _cycle_ns(option, kind)


def expected_ns(peer: Peer, option: GenerationOption, kind: AttemptKind, number: int) -> float:
    """The mean time of so many pairs; infinite where no attempt ever succeeds."""
    is_tested = kind == "keep" and option.test_round is not None
    kept = 1.0 - peer.test_share if is_tested else 1.0
    each = option.probability * kept * _at_once(peer, kind)
    return number * _cycle_ns(option, kind) / each if each > 0.0 else float("inf")


def hopeless(
    peer: Peer, option: GenerationOption, kind: AttemptKind, number: int | None, left_ns: int
) -> str | None:
    """Why so many pairs cannot be had in the time left, or None.

    Either each pair takes an attempt and there are fewer, or the mean time is LATENESS_MAX times
    what is left: even one pair would come with a probability of 1 % only, two with 0.02 %. A
    request without number takes what comes.
    """
    if number is None:
        return None
    least_ns = shortest_ns(peer, option, kind, number)
    mean_ns = expected_ns(peer, option, kind, number)
    if least_ns <= left_ns and mean_ns <= LATENESS_MAX * left_ns:
        return None
    return f"{number} pairs take {mean_ns / 1e9:.3g} s on average, {left_ns / 1e9:.3g} s are left"


def _at_once(peer: Peer, kind: AttemptKind) -> int:
    """Batches of one request at work: pairs to be read come in one batch."""
    return max(1, peer.slots) if kind != "measure" else 1


def _cycle_ns(option: GenerationOption, kind: AttemptKind) -> int:
    return option.measure_cycle_ns if kind == "measure" else option.cycle_ns
