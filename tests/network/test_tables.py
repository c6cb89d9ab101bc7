"""The transition tables, cell by cell: a change of one is seen here."""

from typing import Any

import pytest

from qstack.network.circuit_states import CIRCUIT, CircuitInput, CircuitState
from qstack.network.pair_states import END_PAIR, SEGMENT
from qstack.network.request_states import REQUEST
from qstack.table import IllegalInputError, Table

CIRCUIT_CELLS = """\
state      INSTALLED START  TRAFFIC REFUSED TEARDOWN LOST   IDLE
INSTALLING READY     -      -       CLOSED  CLOSED   CLOSED -
READY      -         ACTIVE -       -       CLOSED   CLOSED -
ACTIVE     -         -      ACTIVE  -       CLOSED   CLOSED CLOSED
CLOSED     -         -      -       -       -        -      -"""

REQUEST_CELLS = """\
state   FORWARDED CIRCUIT_LOST SATISFIED DEADLINE CANCELLED ENDED
WAITING OPEN      -            -         FAILED   FAILED    FAILED
OPEN    -         WAITING      DONE      FAILED   FAILED    FAILED
DONE    -         -            -         -        -         -
FAILED  -         -            -         -        -         -"""

SEGMENT_CELLS = """\
state     PARTNER  OUTCOME FAILED    CUTOFF    VOID
WAITING   SWAPPING -       -         DISCARDED DISCARDED
SWAPPING  -        SWAPPED DISCARDED -         DISCARDED
SWAPPED   -        -       -         -         DISCARDED
DISCARDED -        -       -         -         DISCARDED"""

END_PAIR_CELLS = """\
state     TRACK     EXPIRE    VOID      RELEASED
TRACKING  CONFIRMED DISCARDED DISCARDED DISCARDED
CONFIRMED -         DISCARDED DISCARDED -
DISCARDED DISCARDED DISCARDED DISCARDED -"""

TABLES: list[tuple[Table[Any, Any], str]] = [
    (CIRCUIT, CIRCUIT_CELLS),
    (REQUEST, REQUEST_CELLS),
    (SEGMENT, SEGMENT_CELLS),
    (END_PAIR, END_PAIR_CELLS),
]


@pytest.mark.parametrize(("table", "cells"), TABLES)
def test_the_tables_are_these(table: Table[Any, Any], cells: str) -> None:
    assert table.matrix() == cells


@pytest.mark.parametrize(("table", "cells"), TABLES)
def test_every_state_is_reached_and_an_empty_cell_is_an_error(
    table: Table[Any, Any], cells: str
) -> None:
    reached = {table.start, *table.cells.values()}
    states: list[Any] = list(type(table.start).__members__.values())
    assert reached == {*states}
    inputs = type(next(iter(table.cells))[1])
    for state in states:
        for received in inputs:
            if not table.allows(state, received):
                with pytest.raises(IllegalInputError):
                    table.step(state, received)
                with pytest.raises(IllegalInputError, match=received.name):
                    table.cells[state, received]
            else:
                assert table.cells[state, received] is table.step(state, received)


def test_the_only_state_of_an_input_is_found_and_of_several_there_is_none() -> None:
    assert CIRCUIT.only(CircuitInput.TRAFFIC) is CircuitState.ACTIVE
    with pytest.raises(ValueError, match="unpack"):
        CIRCUIT.only(CircuitInput.TEARDOWN)
