"""What of a link drifts between calibrations, what a calibration costs, and how its phase is held.

Since the last calibration the delay of the second end's light grows evenly, the angle between the
polarisations and the optical phase diffuse, and light is lost exponentially. What these cost is in
`hardware.LinkHardware.herald_under`. A phase lock takes a share of the time in which no attempts
are made, and leaves a residual phase.

As in profiles, every number of the file travels with its source and a mark (`profile.py`), and
nothing has a default; a link without such a table does not drift and needs no calibration.
"""

import math
from typing import Annotated, Any

from msgspec import Meta, structs

from qstack.physical.conditions import Conditions
from qstack.physical.profile import Phase, read_entries
from qstack.physical.sourced import Sourced

DelayRate = Annotated[
    float, Meta(ge=-1e6, le=1e6, description="picoseconds in a second, -10^6 to 10^6")
]
Diffusion = Annotated[
    float, Meta(ge=0, le=100, description="radians in the root of a second, 0 to 100")
]
LossRate = Annotated[float, Meta(ge=0, le=1, description="a share in a second, 0 to 1")]
Span = Annotated[int, Meta(ge=10**6, le=10**15, description="whole nanoseconds, 10^6 to 10^15")]
Period = Annotated[
    int,
    Meta(ge=10**9, le=10**15, description="whole nanoseconds, 10^9 (one second) to 10^15"),
]
Duty = Annotated[float, Meta(gt=0, le=1, description="a share, above 0, at most 1")]


class LinkDrift(Sourced, frozen=True, kw_only=True):
    """How a link drifts, and its care.

    `calibration_period_ns` from one calibration to the next, each of which takes `calibration_ns`
    of both ends. `lock_duty` is the share of time left for attempts beside the phase lock.
    """

    delay_ps_per_s: DelayRate
    polarisation_rad_per_root_s: Diffusion
    phase_rad_per_root_s: Diffusion
    loss_per_s: LossRate
    calibration_period_ns: Period
    calibration_ns: Span
    lock_duty: Duty
    lock_residual_rad: Phase

    @property
    def availability(self) -> float:
        """The share of time in which the link is not being calibrated."""
        return self.calibration_period_ns / (self.calibration_period_ns + self.calibration_ns)

    def after(self, since_ns: float, conditions: Conditions) -> Conditions:
        """What the conditions right after a calibration have become `since_ns` later."""
        since_s = since_ns * 1e-9
        root_s = math.sqrt(since_s)
        return structs.replace(
            conditions,
            delay_ps=conditions.delay_ps + self.delay_ps_per_s * since_s,
            polarisation_rad=math.hypot(
                conditions.polarisation_rad, self.polarisation_rad_per_root_s * root_s
            ),
            phase_rad=math.hypot(conditions.phase_rad, self.phase_rad_per_root_s * root_s),
            transmission=conditions.transmission * math.exp(-self.loss_per_s * since_s),
        )


def read_drift(raw: dict[str, Any], path: str, problems: list[str]) -> LinkDrift | None:
    """The drift of a table `drift`; None, and lines in `problems`, if it cannot be."""
    before = len(problems)
    kinds = {field.name: field.type for field in structs.fields(LinkDrift)}
    del kinds["sources"]
    values, sources = read_entries(raw, kinds, path, problems)
    if len(problems) == before and values["calibration_ns"] >= values["calibration_period_ns"]:
        problems.append(
            f"{path}.calibration_ns.value: {values['calibration_ns']} is not less than the period "
            "of calibrations; expected a fraction of it"
        )
    return LinkDrift(**values, sources=tuple(sources)) if len(problems) == before else None
