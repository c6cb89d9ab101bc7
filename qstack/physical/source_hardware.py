"""The hardware of a photon-pair link: the source in its station, and a receiver at each end.

The receivers are equipment of their own beside the nodes' memories: a pair link takes no memory
and no communication qubit. As in profiles, every number of the file travels with its source and a
mark (`profile.py`), and nothing has a default.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, structs

from qstack.physical.models.pair_source import MEAN_PAIRS_MAX
from qstack.physical.profile import Wavelength, read_entries
from qstack.physical.sourced import Sourced

SlotRate = Annotated[
    int, Meta(ge=1, le=10**9, description="a whole number of slots per second, 1 to 10^9")
]
PairParameter = Annotated[
    float,
    Meta(gt=0, le=MEAN_PAIRS_MAX, description="half of the mean pairs of a slot, above 0 to 1"),
]
Efficiency = Annotated[float, Meta(gt=0, le=1, description="a probability, above 0, at most 1")]
Background = Annotated[
    float, Meta(ge=0, le=0.1, description="clicks without light per slot and side, 0 to 0.1")
]
Misalignment = Annotated[float, Meta(ge=0, le=0.5, description="a probability, 0 to 0.5")]

SECOND_NS: Final = 10**9


class PairSourceHardware(Sourced, frozen=True, kw_only=True):
    """A source that emits in `slot_rate_hz` slots a second, and the receivers at both ends.

    `pair_parameter` is lam of `pair_source.py` (mean pairs 2 lam). `detector_efficiency` is that of
    each detector; what is lost on the way is the link's (fibre, `extra_loss_db` an arm).
    `background_probability` is per slot and side, `misalignment` the error of a lone pair.
    """

    wavelength_nm: Wavelength
    slot_rate_hz: SlotRate
    pair_parameter: PairParameter
    detector_efficiency: Efficiency
    background_probability: Background
    misalignment: Misalignment

    @property
    def slot_ns(self) -> int:
        """The time from one slot to the next."""
        return SECOND_NS // self.slot_rate_hz


def read_pair_source(
    raw: dict[str, Any], path: str, problems: list[str]
) -> PairSourceHardware | None:
    """The hardware of a table `pair_source`; None, and lines in `problems`, if it cannot be."""
    problems_before = len(problems)
    kinds = {field.name: field.type for field in structs.fields(PairSourceHardware)}
    del kinds["sources"]
    values, sources = read_entries(raw, kinds, path, problems)
    rate_hz = values.get("slot_rate_hz")
    if rate_hz is not None and SECOND_NS % rate_hz:
        problems.append(f"{path}.{off_grid(rate_hz)}")
    if len(problems) > problems_before:
        return None
    return PairSourceHardware(**values, sources=tuple(sources))


def off_grid(rate_hz: int) -> str:
    """What to say of slots that do not begin at whole nanoseconds."""
    return (
        f"slot_rate_hz.value: the slots of {rate_hz} Hz do not begin at whole "
        "nanoseconds; expected 10^9 divided by a whole number, such as 100000000"
    )
