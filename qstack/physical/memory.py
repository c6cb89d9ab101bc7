"""The qubits of one node: who owns each, and how many there may be. Admission is here only.

Rules
1. Qubits alive, reserved and not yet free again never exceed the memory.
2. A link never has more than its slots: pairs in the making, and qubits it made and that live on,
   whoever owns them.
3. A qubit that was moved to a communication qubit for its owner keeps it from attempts (`lent`).
4. A batch of attempts takes a place even when it reads its spins at once: the emitter is a qubit.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from qstack.ids import QubitId, qubit_id
from qstack.physical.qubit_states import QUBIT, Input, State

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDED: Final = State.ENDED


class Qubit(Struct, eq=False, gc=False):
    """One entry: `link` is the link it is made with, None for a local qubit."""

    id: QubitId
    owner: str
    link: str | None
    state: State


class Memory:
    """The table of qubits."""

    def __init__(self, boot_id: bytes, capacity: int, slots_per_link: int) -> None:
        self._boot_id = boot_id
        self._capacity = capacity
        self._slots = slots_per_link
        self._made = 0
        self._qubits: dict[bytes, Qubit] = {}
        self.find: Callable[[bytes], Qubit | None] = self._qubits.get
        """The qubit of that name, if it takes a place."""
        self._per_link: dict[str, int] = {}
        self.refused_links: dict[str, None] = {}  # to be told when there is a place for them
        self.lent: dict[QubitId, None] = {}
        """The qubits on communication qubits because their owners asked for it."""

    def __len__(self) -> int:
        """Places taken."""
        return len(self._qubits)

    def admit(self, owner: str, link: str | None = None) -> Qubit | None:
        """A place for a new qubit; None if there is none."""
        state = State.INITIALISING
        if link is not None:
            state = State.ATTEMPTING
            taken = self._per_link.get(link, 0)
            if taken >= self._slots or len(self._qubits) >= self._capacity:
                self.refused_links[link] = None
                return None
            self._per_link[link] = taken + 1
        elif len(self._qubits) >= self._capacity:
            return None
        name = qubit_id(self._boot_id, self._made)
        self._made += 1
        qubit = self._qubits[name] = Qubit(name, owner, link, state)
        return qubit

    def owned_by(self, owner: str) -> list[Qubit]:
        """Everything `owner` has, oldest first."""
        return [qubit for qubit in self._qubits.values() if qubit.owner == owner]

    def by_owner(self) -> dict[str, int]:
        """How many places each owner takes, by name; whoever takes none is left out."""
        return dict(sorted(Counter(qubit.owner for qubit in self._qubits.values()).items()))

    def owners(self) -> list[str]:
        """Everybody who has a qubit."""
        return list(dict.fromkeys(qubit.owner for qubit in self._qubits.values()))

    def step(self, qubit: Qubit, received: Input) -> None:
        """What happened to a qubit. Raises `IllegalInputError`."""
        state = qubit.state = QUBIT.cells[qubit.state, received]
        if state is _ENDED:
            del self._qubits[qubit.id]
            if self.lent:
                self.lent.pop(qubit.id, None)
            if qubit.link is not None:
                self._per_link[qubit.link] -= 1

    def take_news_of_room(self) -> bool:
        """Whether a link that was refused could be admitted now; asked once, told once."""
        if len(self._qubits) >= self._capacity:
            return False
        if any(self._per_link.get(link, 0) < self._slots for link in self.refused_links):
            self.refused_links.clear()
            return True
        return False

    def clear(self) -> None:
        """The device has gone, and everything with it."""
        self._qubits.clear()
        self._per_link.clear()
        self.refused_links.clear()
        self.lent.clear()
