"""The transition tables as they were reviewed: a changed cell is a changed line of tables.txt."""

from pathlib import Path
from typing import Any

import pytest

from qstack.table import IllegalInputError, Table
from qstack.transport.flow_states import FLOW
from qstack.transport.qubit_states import RECEIVING, SENDING
from qstack.transport.stream_states import STREAM

TABLES = {"flow": FLOW, "stream": STREAM, "sending": SENDING, "receiving": RECEIVING}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_the_one_that_was_reviewed(name: str) -> None:
    snapshots = (Path(__file__).parent / "tables.txt").read_text().split("# ")
    snapshot = next(each for each in snapshots if each.startswith(name))
    assert TABLES[name].matrix() == snapshot.partition("\n")[2].strip()


@pytest.mark.parametrize("name", TABLES)
def test_every_state_can_be_reached_and_left_unless_it_is_an_end(name: str) -> None:
    table: Table[Any, Any] = TABLES[name]
    reached = {table.start}
    while True:
        more = {target for (source, _), target in table.cells.items() if source in reached}
        if more <= reached:
            break
        reached |= more
    assert reached == set(type(table.start))
    ends = {state for state in reached if table.is_final(state)}
    assert ends
    for state in reached - ends:
        targets = {target for (source, _), target in table.cells.items() if source is state}
        assert targets != {state}


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_cell_is_an_error(name: str) -> None:
    table: Table[Any, Any] = TABLES[name]
    inputs = type(next(iter(table.cells))[1])
    for state in type(table.start):
        for received in inputs:
            if table.allows(state, received):
                assert table.step(state, received) is table.cells[state, received]
            else:
                with pytest.raises(IllegalInputError):
                    table.step(state, received)
