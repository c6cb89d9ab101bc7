"""What a node says to the named stations of its links: GEN when its device begins to attempt, and
GenEnd when it stops. Nothing is said for each attempt.
"""

from typing import Literal, get_args

from qstack.machine import Effect, Send
from qstack.physical.device import Generate
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.service import AttemptKind, AttemptsStart
from qstack.physical.station_messages import Calibrating, Gen, GenEnd


class StationGens:
    """The links of a node that go through named stations, and which of those are there."""

    def __init__(self, node: str, world: World) -> None:
        self.links: dict[str, LinkHardware] = {
            link.id: link for link in world.links_of(node) if link.station is not None
        }
        """Those links, by name."""
        self.up: dict[str, None] = {}
        """The stations that are there."""
        self._grids: dict[tuple[str, AttemptKind], tuple[int, int]] = {}
        kinds: tuple[AttemptKind, ...] = get_args(AttemptKind)
        for name, link in self.links.items():
            profiles = world.end_profiles(name)
            # Of pairs that a source sends to both ends cycles are slots, in which it emits.
            offset_ns = link.emission_offset_ns(*profiles) if link.is_heralded else 0
            for kind in kinds:
                self._grids[name, kind] = link.cycle_ns(kind, *profiles), offset_ns

    def is_away(self, link: str) -> bool:
        """Whether a link has a named station that is not there."""
        hardware = self.links.get(link)
        return hardware is not None and hardware.station not in self.up

    def emitted_at_ns(self, link: str, kind: AttemptKind, cycle: int) -> int:
        """When the photons of a cycle were emitted."""
        cycle_ns, offset_ns = self._grids[link, kind]
        return cycle * cycle_ns + offset_ns

    def begun(self, operation: Generate) -> list[Effect]:
        """The device begins to attempt."""
        link = self.links.get(operation.link)
        if link is None or link.station is None:
            return []
        gen = Gen(
            link=operation.link,
            batch=operation.batch,
            token=operation.token,
            kind=operation.kind,
            first_cycle=operation.first_cycle,
            count=None,
            bright_state=operation.bright_state,
            pairs=operation.pairs,
        )
        return [Send(link.station, gen)]

    def ended(
        self, asked: AttemptsStart, batch: int, now: int, error: Literal["LOCAL"] | None = None
    ) -> list[Effect]:
        """The device attempts no more: cycles with an emission before `now` were made."""
        link = asked.link
        hardware = self.links.get(link)
        if hardware is None or hardware.station is None:
            return []
        cycle_ns, offset_ns = self._grids[link, asked.kind]
        until_cycle = max(0, -((offset_ns - now) // cycle_ns))
        end = GenEnd(link=link, batch=batch, until_cycle=until_cycle, error=error)
        return [Send(hardware.station, end)]

    def calibrating(self, link: LinkHardware, until_ns: int) -> list[Effect]:
        """The device does its part of a calibration."""
        if link.station is None:
            return []
        return [Send(link.station, Calibrating(link=link.id, until_ns=until_ns))]
