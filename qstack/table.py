"""Transition tables: what may happen next, as data.

Every kind of thing that has a life (a request, a circuit, a stream) has one table. An absent cell
is an error, never a silent no-op; the machine that catches `IllegalInputError` says whose error
it is.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741 - the name the state files use


class IllegalInputError(Exception):
    """The table has no cell for this input in this state."""

    def __init__(self, state: Enum, received: Enum) -> None:
        super().__init__(f"{received.name} is not allowed in state {state.name}")
        self.state = state
        self.received = received


class Table(Generic[S, I]):
    """The transitions of one kind of thing, from `start`."""

    def __init__(self, start: S, cells: Mapping[tuple[S, I], S]) -> None:
        self.start = start
        self.cells = dict(cells)
        # Members are single objects that live for ever: their ids are keys that hash quickly.
        self._by_id = {(id(state), id(got)): target for (state, got), target in cells.items()}
        self._states = type(start)
        self._inputs = {type(received) for _, received in cells}

    def step(self, state: S, received: I) -> S:
        """The next state. Raises `IllegalInputError` on an empty cell."""
        try:
            return self._by_id[id(state), id(received)]
        except KeyError:
            raise IllegalInputError(state, received) from None

    def allows(self, state: S, received: I) -> bool:
        """Whether the cell exists."""
        return (id(state), id(received)) in self._by_id

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
