"""How long a pair keeps a fidelity while nobody touches it, as a node expects it from profiles.

The pair is the one its herald announces (`prediction.announced`), each half that is kept decays by
its own node's law where it comes to rest, and the fidelity is that to the Bell state of the herald.
What attempts do to idle qubits is not in it, for how many there will be nobody knows; nor what a
link has drifted since its calibration, which the two ends may know differently.
"""

from typing import Final

from qstack.physical.generation import has_storage
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.models.storage import waiting
from qstack.physical.prediction import announced
from qstack.quantum.bell import fidelity
from qstack.quantum.pauli import FloatArray
from qstack.quantum.state import apply

NS: Final = 1e-9
AGE_MAX_NS: Final = 2**53
"""What keeps its fidelity for 104 days is taken to keep it for ever."""


def good_for_ns(
    world: World,
    link_name: str,
    bright_state: float | None,
    z_bit: int,
    floor: float,
    kept: tuple[str, ...],
) -> int | None:
    """The age up to which a pair announced with `z_bit` is expected to have the fidelity `floor`.

    `kept` are the ends whose halves wait. To the nanosecond; 0 if it never has, None for ever.
    """
    link = world.links[link_name]
    heralded = announced(world, link, bright_state)
    if heralded is None:
        return 0
    pair = heralded.state_minus if z_bit else heralded.state

    def is_good(age_ns: int) -> bool:
        aged = _aged(world, link, pair, kept, age_ns)
        return fidelity(aged, 1, z_bit) >= floor

    if not is_good(0):
        return 0
    good, bad = 0, 1
    while is_good(bad):
        good, bad = bad, 2 * bad
        if bad > AGE_MAX_NS:
            return None
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if is_good(middle) else (good, middle)
    return good


def _aged(
    world: World, link: LinkHardware, pair: FloatArray, kept: tuple[str, ...], age_ns: int
) -> FloatArray:
    """The pair at an age."""
    for axis, end in enumerate(link.ends):
        if end in kept:
            node = world.nodes[end]
            profile, is_stored = node.profile, has_storage(node.memory, node.profile.comm_qubits)
            times_s = profile.decay_times_s(is_stored=is_stored)
            decay = waiting(profile.decay_law, *times_s, 0.0, age_ns * NS)
            pair = apply(pair, axis, decay.transfer)
    return pair
