"""Which model a photon-pair link has at a time: a satellite's changes as it passes.

Within a step of a pass nothing changes, so that slots stay independent and gaps geometric; a chunk
never reaches beyond its step. Between passes there are no slots: the next chunk begins with the
next pass.
"""

from functools import lru_cache
from typing import NamedTuple

from qstack.physical.conditions import IDEAL, Conditions
from qstack.physical.fabric.clicks import SourceModel
from qstack.physical.fabric.link_model import SETTINGS_MAX
from qstack.physical.hardware import LinkHardware
from qstack.physical.link_options import PassChannel


class Spell(NamedTuple):
    """From `first_slot` until before `until_slot` (None: for ever) it is this step of a pass.

    `step` is None where there are no passes.
    """

    step: int | None
    first_slot: int
    until_slot: int | None


class SourceModels:
    """The models of one link."""

    def __init__(self, link: LinkHardware) -> None:
        self.usual = SourceModel(link)
        """Of fibre or air the one of perfect clocks; of a satellite in the middle of a pass."""
        self._channel = link.channel if isinstance(link.channel, PassChannel) else None
        steps = 0 if self._channel is None else len(self._channel.one_pass)
        self._made = lru_cache(SETTINGS_MAX + steps)(self._make)

    def next_step(self, first_slot: int) -> Spell:
        """What it is from `first_slot` on, or from the next slot the link is up in."""
        if self._channel is None:
            return Spell(None, first_slot, None)
        slot_ns = self.usual.slot_ns
        while True:
            number, place = self._channel.number_at(first_slot * slot_ns)
            step = self._channel.stretch(number, place)
            first = max(first_slot, -(-step.begin_ns // slot_ns))
            until = -(-step.until_ns // slot_ns)
            if first < until:
                return Spell(place, first, until)
            first_slot = until  # no slot begins within the step

    def model(self, step: int | None, conditions: Conditions | None) -> SourceModel:
        """That of a step of a pass, under these conditions (None: what the profiles say)."""
        if step is None and conditions is None:
            return self.usual
        return self._made(step, IDEAL if conditions is None else conditions)

    def _make(self, step: int | None, conditions: Conditions) -> SourceModel:
        if step is None:
            return SourceModel(self.usual.link, conditions)
        assert self._channel is not None
        return SourceModel(self.usual.link, conditions, self._channel.one_pass[step].transmissions)
