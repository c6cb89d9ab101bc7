"""Transition tables: what may happen next, as data.

Every kind of thing that has a life (a request, a circuit, a stream) has one table. An absent cell
is an error, never a silent no-op; the machine that catches `IllegalInputError` says whose error
it is.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar


class Member(Enum):
    """A state or an input: a single object, and hashed as one, not by its name as an `Enum` is."""

    __hash__ = object.__hash__


S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - the name the state files use


class IllegalInputError(Exception):
    """The table has no cell for this input in this state."""

    def __init__(self, state: Enum, received: Enum) -> None:
        super().__init__(f"{received.name} is not allowed in state {state.name}")
        self.state = state
        self.received = received


class Cells(dict[tuple[S, I], S]):
    """The next state, by state and input. To look up an empty cell raises `IllegalInputError`."""

    def __missing__(self, key: tuple[S, I]) -> S:
        """There is no such cell."""
        raise IllegalInputError(*key)


class Table(Generic[S, I]):
    """The transitions of one kind of thing, from `start`.

    `cells[state, received]` is `step` without a call, for what happens with every pair.
    """

    def __init__(self, start: S, cells: Mapping[tuple[S, I], S]) -> None:
        self.start = start
        self.cells = Cells(cells)
        self._states = type(start)
        self._inputs = {type(received) for _, received in cells}

    def step(self, state: S, received: I) -> S:
        """The next state. Raises `IllegalInputError` on an empty cell."""
        return self.cells[state, received]

    def allows(self, state: S, received: I) -> bool:
        """Whether the cell exists."""
        return (state, received) in self.cells

    def only(self, received: I) -> S:
        """The one state in which `received` is allowed. Raises ValueError if there are others."""
        (state,) = (state for state, got in self.cells if got is received)
        return state

    def is_final(self, state: S) -> bool:
        """Whether nothing leads out of `state`."""
        return all(source is not state for source, _ in self.cells)

    def matrix(self) -> str:
        """The whole grid as text: the snapshot a reviewer reads."""
        inputs = [received for kind in self._inputs for received in kind]
        rows = [["state", *(received.name for received in inputs)]]
        for state in self._states:
            cells = (self.cells.get((state, received)) for received in inputs)
            rows.append([state.name, *(cell.name if cell else "-" for cell in cells)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            " ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def dot(self) -> str:
        """The graph in Graphviz language, for the documentation."""
        edges = [
            f'  {source.name} -> {target.name} [label="{received.name}"];'
            for (source, received), target in self.cells.items()
        ]
        return "\n".join(["digraph {", *edges, "}"])
