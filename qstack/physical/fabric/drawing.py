"""What comes next of attempts that go on in common cycles: drawn, and never stepped one by one.

Attempts are independent, so the gaps between successes are geometric. Where conditions change
slowly what is drawn holds for SEGMENT_NS, and then is drawn anew: attempts have no memory.
"""

from typing import TYPE_CHECKING

from msgspec import Struct
from numpy.random import Generator

from qstack.physical.device import Generate
from qstack.physical.fabric.link_model import LinkModel
from qstack.physical.fabric.measured import Chunk, draw_chunk
from qstack.physical.params import SEGMENT_NS

if TYPE_CHECKING:
    from qstack.physical.conditions import Conditions


class Next(Struct, frozen=True):
    """The `cycle` of the next event, None for none at all; what it is.

    With a `chunk` the cycle is that of its last pair, of at least one. `is_undecided`: nothing
    comes before that cycle, in which to look again.
    """

    cycle: int | None
    chunk: Chunk | None
    is_undecided: bool


def draw_next(
    generator: Generator,
    model: LinkModel,
    asked: Generate,
    conditions: "Conditions | None",
    first_cycle: int,
    pairs: int,
) -> Next:
    """What comes of attempts like `asked` from `first_cycle` on, under these conditions."""
    probability = model.success(asked.bright_state, conditions).probability
    last_cycle = None  # the first that is not decided under these conditions
    if conditions is not None:
        last_cycle = first_cycle + max(1, SEGMENT_NS // model.cycle_ns(asked.kind))
    cycle = chunk = None
    if probability > 0.0 and asked.kind != "measure":
        cycle = first_cycle - 1 + int(generator.geometric(probability))
    elif probability > 0.0:
        chunk = draw_chunk(
            generator,
            first_cycle=first_cycle,
            cycle_ns=model.cycle_ns(asked.kind),
            probability=probability,
            pairs=pairs,
        )
        if last_cycle is not None and chunk.cycles[-1] >= last_cycle:
            chunk = chunk.before(last_cycle)
        cycle = int(chunk.cycles[-1]) if len(chunk.cycles) else None
    if last_cycle is not None and (cycle is None or cycle >= last_cycle):
        return Next(last_cycle, None, is_undecided=True)
    return Next(cycle, chunk, is_undecided=False)
