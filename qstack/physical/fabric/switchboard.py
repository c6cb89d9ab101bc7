"""Optical switches before stations: each lets one link at a time attempt, and takes time to set.

Matches of the link a switch is set to attempt side by side. One of another link waits until all of
them have ended, and then the first in line is next, with those of its link right behind it; whoever
comes while somebody waits stands last. To set the switch to another link takes its
`reconfiguration_ns`, and so does the first setting.

A match that ends by itself holds the switch until it does (`keep`); one that goes on asks
`must_yield` between its chunks, and stands in line again if others wait and its link has had
SWITCH_HOLD_NS.
Nodes attempt all the same while their match waits: nobody tells them how the switch is set.
"""

from collections.abc import Callable, Mapping

from qstack.physical.hardware import LinkHardware
from qstack.physical.link_options import Switch
from qstack.physical.params import SWITCH_HOLD_NS

Begin = Callable[[int], None]
"""Called with the time from which on attempts count."""


class _Line:
    """One switch: who attempts, since when, and who waits."""

    def __init__(self, reconfiguration_ns: int) -> None:
        self.reconfiguration_ns = reconfiguration_ns
        self.set_to: str | None = None
        self.since_ns = 0
        self.holders: dict[object, None] = {}
        self.waiting: dict[object, tuple[str, Begin]] = {}


class Switchboard:
    """All switches. A match is any object of which there is one."""

    def __init__(self, links: Mapping[str, LinkHardware]) -> None:
        self._lines: dict[str, _Line] = {}
        self._line_of: dict[str, _Line] = {}
        for name, link in links.items():
            if link.switch is not None:
                self._line_of[name] = self._line(link.switch)

    def has(self, link: str) -> bool:
        """Whether a switch lies before the station of `link`."""
        return link in self._line_of

    def enter(self, link: str, match: object, at_ns: int, begin: Begin) -> None:
        """A match wants to attempt: `begin` is called now, or when it is its turn."""
        line = self._line_of[link]
        line.waiting[match] = (link, begin)
        self._advance(line, at_ns)

    def leave(self, link: str, match: object, at_ns: int) -> None:
        """A match attempts no more, or waits no more."""
        line = self._line_of[link]
        line.waiting.pop(match, None)
        line.holders.pop(match, None)
        self._advance(line, at_ns)

    def from_ns(self, link: str, match: object, at_ns: int) -> int | None:
        """From when on attempts of a match count, at `at_ns` at the soonest; None: it waits."""
        line = self._line_of.get(link)
        if line is None:
            return at_ns
        return max(at_ns, line.since_ns) if match in line.holders else None

    def must_yield(self, link: str, at_ns: int) -> bool:
        """Whether a match of `link` that goes on has had its time, and others wait."""
        line = self._line_of[link]
        return bool(line.waiting) and at_ns - line.since_ns >= SWITCH_HOLD_NS

    def _line(self, switch: Switch) -> _Line:
        return self._lines.setdefault(switch.name, _Line(switch.reconfiguration_ns))

    def _advance(self, line: _Line, at_ns: int) -> None:
        """Let all those in that may attempt now."""
        while line.waiting:
            first, (link, begin) = next(iter(line.waiting.items()))
            if line.holders and link != line.set_to:
                return
            del line.waiting[first]
            if link != line.set_to:
                line.set_to = link
                line.since_ns = at_ns + line.reconfiguration_ns
            elif not line.holders:
                line.since_ns = max(at_ns, line.since_ns)
            line.holders[first] = None
            begin(max(at_ns, line.since_ns))
