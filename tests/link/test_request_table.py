"""The lives of link requests and conversations, cell by cell: a change of one is seen here."""

import pytest

from qstack.link.conversation_states import CONVERSATION
from qstack.link.request_states import REQUEST, Input, State
from qstack.table import IllegalInputError

CELLS = """\
state   ACCEPTED REFUSED SERVED WITHDRAWN DEADLINE LINK_LOST
ADDING  SERVING  FAILED  DONE   FAILED    FAILED   FAILED
SERVING -        -       DONE   FAILED    FAILED   FAILED
DONE    -        -       -      -         -        -
FAILED  -        -       -      -         -        -"""

CONVERSATION_CELLS = """\
state   CHANNEL HEARD ANEW    NO_ANSWER CHANNEL_LOST
SILENT  OPENING -     -       -         -
OPENING -       OPEN  -       -         SILENT
OPEN    -       -     OPENING OPENING   SILENT"""


def test_the_tables_are_these() -> None:
    assert REQUEST.matrix() == CELLS
    assert CONVERSATION.matrix() == CONVERSATION_CELLS


def test_every_state_is_reached_and_every_life_ends() -> None:
    assert {REQUEST.start, *REQUEST.cells.values()} == {*State}
    assert [state for state in State if REQUEST.is_final(state)] == [State.DONE, State.FAILED]
    for state in (State.ADDING, State.SERVING):
        ends = {REQUEST.step(state, received) for received in Input
                if REQUEST.allows(state, received)}  # fmt: skip
        assert State.FAILED in ends


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("received", Input)
def test_an_empty_cell_is_an_error(state: State, received: Input) -> None:
    if REQUEST.allows(state, received):
        assert REQUEST.step(state, received) in State
        return
    with pytest.raises(IllegalInputError):
        REQUEST.step(state, received)
