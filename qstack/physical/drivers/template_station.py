"""A driver of a station's detectors to begin from: copy it, and put yours where it says HARDWARE.

It works as it is, with nodes of the driver `template`: clicks are drawn with the probability that
the profiles of the two ends give, and nothing has to meet for them.
"""

from typing import Final

import numpy as np

from qstack.errors import ErrorCode, LocalError
from qstack.physical.drivers.setup import Setup
from qstack.physical.drivers.station_driver import StationDriver
from qstack.physical.params import HERALDS_MAX, NEVER_NS, RESULT_MIN_NS
from qstack.physical.station_device import Clicked, ClickedInCycles, WatchLink
from qstack.wire.packed import Slots, pack_bits, pack_slots

SPAN_CYCLES: Final = 2**31
"""A part covers fewer cycles than its numbers can say."""


class TemplateStation(StationDriver):
    """One station's detectors. The base keeps the books and times answers."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._seen: dict[int, Slots] = {}  # the cycles that are to click next, by watch
        self._left: dict[int, int] = {}

    def watch(self, asked: WatchLink) -> None:
        """HARDWARE: look for photons of both ends of `asked.link`, from `first_cycle` on."""
        if not self.links[asked.link].is_heralded:
            raise LocalError(ErrorCode.UNSUPPORTED, "this station has no source of photon pairs")
        self._left[asked.sequence] = asked.pairs
        self._draw(asked, asked.first_cycle)

    def _draw(self, asked: WatchLink, first_cycle: int) -> None:
        """The toy: in which cycles the detectors click next. The device is woken at the last."""
        link = self.links[asked.link]
        profiles = self.setup.world.end_profiles(asked.link)
        probability = link.herald(*profiles, asked.bright_state).probability
        count = min(self._left[asked.sequence], HERALDS_MAX)
        gaps = np.minimum(self.setup.rng.geometric(probability, count), SPAN_CYCLES)
        cycles = first_cycle - 1 + np.cumsum(gaps)
        cycles = cycles[cycles < cycles[0] + SPAN_CYCLES]
        if asked.until_cycle is not None:
            cycles = cycles[cycles < asked.until_cycle]
        self._seen[asked.sequence] = cycles
        if len(cycles) and self._arrival_ns(asked, int(cycles[-1])) < NEVER_NS:
            self.wake(self._arrival_ns(asked, int(cycles[-1])), asked)

    def woken(self, asked: WatchLink, at_ns: int) -> None:
        """HARDWARE: the detectors have clicked, the last time at `at_ns`."""
        cycles = self._seen[asked.sequence]
        if asked.kind == "measure":
            is_last = self._say_part(asked, cycles, at_ns)
            if not is_last:
                self._draw(asked, int(cycles[-1]) + 1)
                return
        else:
            clicked = Clicked(
                operation=asked.sequence,
                cycle=int(cycles[0]),
                x_bit=1,
                z_bit=int(self.setup.rng.integers(2)),  # psi+ or psi-: which detectors clicked
                calibration=self.calibration,
            )
            self.say(at_ns + RESULT_MIN_NS, clicked)
        del self.watches[asked.sequence]

    def stop(self, asked: WatchLink, until_cycle: int, at_ns: int) -> None:
        """HARDWARE: watch no more. What was emitted before `until_cycle` still counts."""
        cycles = self._seen[asked.sequence]
        cycles = cycles[cycles < until_cycle]
        if not len(cycles):
            self.ended(asked, at_ns)
            return
        last_ns = max(at_ns, self._arrival_ns(asked, int(cycles[-1])))
        if asked.kind != "measure":  # its click is to come, and is the last word
            return
        is_last = self._say_part(asked, cycles, last_ns)
        if is_last:
            del self.watches[asked.sequence]
        else:
            self.ended(asked, last_ns)

    def calibrate(self, link: str) -> bool:
        """HARDWARE: calibrate the link with both ends."""
        del link
        return True

    # --- parts of the toy -------------------------------------------------------------------------

    def _say_part(self, asked: WatchLink, cycles: Slots, at_ns: int) -> bool:
        """The detectors clicked in these cycles; whether that was the last of what was wanted."""
        pairs, first_cycle = len(cycles), int(cycles[0])
        self._left[asked.sequence] -= pairs
        is_last = not self._left[asked.sequence]
        clicked = ClickedInCycles(
            operation=asked.sequence,
            pairs=pairs,
            first_cycle=first_cycle,
            cycles=pack_slots(cycles, first_cycle),
            x_bits=pack_bits(np.ones(pairs, dtype=np.uint8)),
            z_bits=pack_bits(self.setup.rng.integers(0, 2, pairs, dtype=np.uint8)),
            is_last=is_last,
            calibration=self.calibration,
        )
        self.say(at_ns + RESULT_MIN_NS, clicked)
        return is_last

    def _arrival_ns(self, asked: WatchLink, cycle: int) -> int:
        """When the photons of a cycle are here."""
        link, profiles = self.links[asked.link], self.setup.world.end_profiles(asked.link)
        cycle_ns = link.cycle_ns(asked.kind, *profiles)
        return cycle * cycle_ns + link.emission_offset_ns(*profiles) + link.arrival_ns
