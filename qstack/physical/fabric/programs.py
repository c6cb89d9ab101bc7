"""Device programs in the emulated devices: they begin when the herald is at the node, to the ns.

Heralds of attempts to keep come here as well as to their nodes, where the nodes run programs. What
is due here at a time comes before the operations of that time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import Operation, Release, Result
from qstack.physical.fabric.batches import Batch
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.qubit_operations import QubitOperations
from qstack.physical.fabric.readings import Deliver
from qstack.physical.fabric.register import RefusedError, Register
from qstack.physical.hardware import World
from qstack.physical.program_book import Program, ProgramBook
from qstack.physical.program_device import ArmProgram, DisarmProgram

Life = Callable[[str], bytes]
"""The boot id of a node that is up."""


class Arrival:
    """The herald of a kept qubit, on its way to its node."""

    def __init__(self, batch: Batch, number: int, at_ns: int) -> None:
        self.batch = batch
        self.number = number
        self.event_ns: int | None = at_ns


class Due:
    """Something that is due of a program; void if the program has gone on in the meantime."""

    def __init__(self, node: str, program: Program) -> None:
        self.node = node
        self.program = program
        self.number = program.number

    @property
    def event_ns(self) -> int | None:
        """When."""
        return self.program.event_ns


class Programs:
    """The programs of all nodes that run some."""

    def __init__(
        self,
        world: World,
        register: Register,
        operations: QubitOperations,
        life: Life,
        *,
        deliver: Deliver,
        schedule: Callable[[str, Arrival | Due], None],
    ) -> None:
        self.nodes = frozenset(name for name, node in world.nodes.items() if node.runs_programs)
        self._register = register
        self._schedule = schedule
        self._arrivals = 0

        def book(node: str) -> ProgramBook:
            def say(due_ns: int, result: Result) -> None:
                deliver(node, due_ns, result)

            def later(program: Program) -> None:
                schedule(node, Due(node, program))

            hands = _Hands(node, world, register, operations, life)
            return ProgramBook(world.nodes[node].profile, hands, say=say, schedule=later)

        self._books = {node: book(node) for node in sorted(self.nodes)}

    def count(self, node: str) -> int:
        """Programs of one of the nodes that wait or run."""
        return len(self._books[node])

    def node_gone(self, node: str) -> None:
        """Its programs end, without a word."""
        if node in self.nodes:
            self._books[node].clear()

    # --- what nodes ask ---

    def ask(self, node: str, operation: ArmProgram | DisarmProgram, at_ns: int) -> None:
        """Take a program, or back. Raises `RefusedError`."""
        if node not in self.nodes:
            raise RefusedError(ErrorCode.UNSUPPORTED, f"the device of {node} runs no programs")
        if isinstance(operation, DisarmProgram):
            self._books[node].disarm(operation.program, at_ns)
            return
        with _refusing():
            self._books[node].arm(operation, at_ns)

    def require_free(self, node: str, operation: Operation) -> None:
        """Refuse what touches a qubit a program has. Raises `RefusedError`."""
        if node in self.nodes:
            with _refusing():
                self._books[node].require_free(operation)

    def keeps(self, node: str, release: Release) -> bool:
        """Whether a release waits for the end of a program."""
        return node in self.nodes and self._books[node].keeps(release.qubit)

    # --- what happens ---

    def heralded(self, batch: Batch, at_ns: int) -> None:
        """A batch has kept a qubit, and its node hears of it at `at_ns`."""
        if batch.node in self.nodes and batch.operation.kind == "keep":
            self._arrivals += 1
            self._schedule(batch.node, Arrival(batch, self._arrivals, at_ns))

    def due(self, work: Arrival | Due, at_ns: int) -> None:
        """The time of something has come."""
        if isinstance(work, Due):
            self._books[work.node].due(work.program, at_ns)
            return
        work.event_ns = None
        batch = work.batch
        if batch.qubit is not None and batch.qubit in self._register:
            asked = batch.operation
            book = self._books[batch.node]
            book.heralded(asked.link, asked.token, batch.qubit.qubit, at_ns)


class _Hands:
    """What does the steps of one node's programs."""

    def __init__(
        self,
        node: str,
        world: World,
        register: Register,
        operations: QubitOperations,
        life: Life,
    ) -> None:
        self._node = node
        self._world = world
        self._register = register
        self._operations = operations
        self._life = life

    def has(self, qubit: bytes) -> bool:
        return QubitKey(self._node, qubit) in self._register

    def require_link(self, link: str) -> None:
        hardware = self._world.links.get(link)
        if hardware is None or self._node not in hardware.ends:
            raise LocalError(ErrorCode.BAD_REQUEST, f"{self._node} is not on a link {link}")
        if not hardware.is_heralded or hardware.station is not None:
            raise LocalError(ErrorCode.UNSUPPORTED, f"no herald of {link} comes to the device")

    def perform(self, operation: Operation, step: int) -> Result | None:
        draw = "program", self._node, self._life(self._node), operation.sequence, step
        try:
            return self._operations.perform(self._node, operation, operation.at_ns, draw)
        except RefusedError as refusal:
            raise LocalError(refusal.code, refusal.detail) from refusal

    def release(self, qubit: bytes) -> None:
        self._register.release(QubitKey(self._node, qubit))


@contextmanager
def _refusing() -> Iterator[None]:
    """Make the caller's mistakes refusals of the fabric."""
    try:
        yield
    except LocalError as error:
        raise RefusedError(error.code, error.detail) from error
