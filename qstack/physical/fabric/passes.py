"""Which model a photon-pair link has at a time: a satellite's changes as it passes.

Within a step of a pass nothing changes, so that slots stay independent and gaps geometric; a chunk
never reaches beyond its step. Between passes there are no slots: the next chunk begins with the
next pass.
"""

from functools import cache
from typing import NamedTuple

from qstack.physical.fabric.clicks import SourceModel
from qstack.physical.hardware import LinkHardware
from qstack.physical.link_options import PassChannel


class Spell(NamedTuple):
    """From `first_slot` until before `until_slot` (None: for ever) the link is as `model` says."""

    model: SourceModel
    first_slot: int
    until_slot: int | None


class SourceModels:
    """The models of one link."""

    def __init__(self, link: LinkHardware) -> None:
        self.usual = SourceModel(link)
        """Of fibre or air the only one; of a satellite that of the middle of a pass."""
        self._channel = link.channel if isinstance(link.channel, PassChannel) else None
        self._model_of = cache(self._of_step)

    def at(self, first_slot: int) -> Spell:
        """What holds from `first_slot` on, or from the next slot the link is up in."""
        if self._channel is None:
            return Spell(self.usual, first_slot, None)
        slot_ns = self.usual.slot_ns
        while True:
            number, place = self._channel.number_at(first_slot * slot_ns)
            step = self._channel.stretch(number, place)
            first = max(first_slot, -(-step.begin_ns // slot_ns))
            until = -(-step.until_ns // slot_ns)
            if first < until:
                return Spell(self._model_of(place), first, until)
            first_slot = until  # no slot begins within the step

    def _of_step(self, place: int) -> SourceModel:
        assert self._channel is not None
        return SourceModel(self.usual.link, self._channel.one_pass[place].transmissions)
