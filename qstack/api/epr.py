"""EPR sockets: a rendezvous of equal ports at two nodes, where entangled pairs are handed out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import trio

from qstack.api import checks
from qstack.api.call import Answer, Call, Subject
from qstack.api.checks import DEADLINE_NS
from qstack.api.errors import BadRequest, QstackError, Refused
from qstack.api.qubit import Qubit
from qstack.ids import PairId
from qstack.physical.rotations import axes
from qstack.physical.service import Rotation
from qstack.transport import service as transport
from qstack.wire.message import BasisChoice, Message
from qstack.wire.packed import BASES, fixed_code, unpack_bases

if TYPE_CHECKING:
    from qstack.api.node import Node

Bits = npt.NDArray[np.uint8]
Letters = npt.NDArray[np.str_]
BasisArgument = str | Mapping[str, float]
"""A basis letter, or the probability of each: `{"Z": 0.9, "X": 0.1}`."""
_Make = Callable[[int, int], Message]
"""From the number of a call and of pairs, its message."""


@dataclass(frozen=True)
class Pair:
    """One half of an entangled pair in state phi+, as good as `goodness` says.

    `bits` (x, z) are the Bell state as it was before its correction to phi+. `goodness` is the
    node's estimate of the fidelity at network time `time_of_goodness_ns`.
    """

    qubit: Qubit
    id: PairId
    remote: str
    bits: tuple[int, int]
    goodness: float
    time_of_goodness_ns: int


@dataclass(frozen=True, eq=False)
class MeasuredPairs:
    """Pairs that were read as they came: arrays of 0 and 1, one element a pair, in order.

    `outcomes` are those of phi+; `x` and `z` the raw Bell states; `bases` the letters each pair was
    read in here; `goodness` the mean estimate. Equal bases agree in X and Z and differ in Y.
    """

    remote: str
    outcomes: Bits
    x: Bits
    z: Bits
    bases: Letters
    goodness: float

    def __len__(self) -> int:
        return len(self.outcomes)


@dataclass(frozen=True)
class Prepared:
    """A qubit at the far end, prepared from here: its half of pair `id`, ours of which was read.

    `outcome` is what was read, in `basis`. `direction` is where a perfect pair leaves the far
    qubit on the Bloch sphere (x, y, z); `goodness` is the estimate of the pair's fidelity at
    network time `time_of_goodness_ns`, `bits` its Bell state before the far end's correction.
    """

    outcome: int
    basis: str
    direction: tuple[float, float, float]
    id: PairId
    remote: str
    bits: tuple[int, int]
    goodness: float
    time_of_goodness_ns: int


Item = TypeVar("Item")


class Arrivals(ABC, Generic[Item]):
    """Pairs on their way. Await it for one; iterate (`async for`) over as many as asked for.

    Raises `Refused`, `Expired`, `Lost` or `NodeGone` when no more pairs come. Whoever leaves an
    iteration early calls `aclose()`; closing the socket does the same.
    """

    def __init__(self, socket: "EprSocket", make: _Make, number: int | None) -> None:
        self._socket = socket
        self._number = number
        checked = checks.number(1 if number is None else number)
        self._call = socket.call(lambda call: make(call, checked))
        self._is_started = False
        self._is_ended = False
        self._is_taken = False

    @abstractmethod
    def _told(self, answer: Answer) -> Item | None:
        """What the application is given for an answer; None for the last one."""

    def __await__(self) -> Generator[object, None, Item]:
        return self._one().__await__()

    async def _one(self) -> Item:
        if self._number is not None:
            raise BadRequest("with a number of pairs, iterate: async for pair in ...")
        return await anext(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        if self._is_taken:
            raise BadRequest("another task waits for the next of these pairs")
        if self._is_ended:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        self._is_taken = True
        try:
            answer = await self._take()
        except (QstackError, trio.Cancelled):
            self._end()
            raise
        finally:
            self._is_taken = False
        item = self._told(answer)
        if item is not None:
            return item
        self._end()
        raise StopAsyncIteration

    async def _take(self) -> Answer:
        connection = self._socket.node.connection
        if not self._is_started:
            connection.start(self._call)
            self._is_started = True
            self._socket.waiting[self] = None
        return await connection.take(self._call)

    def _end(self) -> None:
        self._is_ended = True
        self._socket.waiting.pop(self, None)

    async def aclose(self) -> None:
        """Ask for no more; what has come and was not taken is freed."""
        self.drop()
        await trio.lowlevel.checkpoint()

    def drop(self) -> None:
        """End it, unless a task waits for it: that task is told by the node."""
        if self._is_taken:
            return
        if self._is_started and not self._is_ended:
            self._socket.node.connection.withdraw(self._call)
        self._end()


class Pairs(Arrivals[Pair]):
    """Pairs that are kept."""

    def _told(self, answer: Answer) -> Pair | None:
        if not isinstance(answer, transport.PairDelivered):
            return None
        return self._socket.pair(answer)


class PreparedStates(Arrivals[Prepared]):
    """Qubits at the far end that readings here prepare."""

    def __init__(
        self, socket: "EprSocket", make: _Make, number: int | None, rotation: Rotation | None
    ) -> None:
        super().__init__(socket, make, number)
        self._axes = axes(rotation)

    def _told(self, answer: Answer) -> Prepared | None:
        if not isinstance(answer, transport.PairPrepared):
            return None
        x, y, z = (1 - 2 * answer.outcome) * self._axes[BASES.index(answer.basis)]
        return Prepared(
            outcome=answer.outcome,
            basis=answer.basis,
            direction=(float(x), float(-y), float(z)),  # phi+ mirrors y
            id=answer.pair,
            remote=answer.remote,
            bits=(answer.x_bit, answer.z_bit),
            goodness=answer.goodness,
            time_of_goodness_ns=answer.time_of_goodness_ns,
        )


class EprSocket:
    """One end of a rendezvous. Pairs are made by one end (`create_...`, needs `remote`) and taken
    by the other (`accept...`).

    `deadline_ns` is a span of network time from now (10 s unless told; None waits for ever).
    """

    def __init__(
        self, node: "Node", number: int, *, remote: str | None, port: int, min_fidelity: float
    ) -> None:
        self.node = node
        self.number = number
        self.remote = remote
        self.port = port
        self.min_fidelity = min_fidelity
        self.waiting: dict[Arrivals[Any], None] = {}
        self._subject = Subject(port, "socket", number)

    def create_keep(
        self,
        n: int | None = None,
        *,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> Pairs:
        """Make pairs and keep them; the far end must `accept` as many."""
        make = self._create(None, min_fidelity, priority, deadline_ns)
        return Pairs(self, make, n)

    def accept(self, n: int | None = None, *, deadline_ns: int | None = DEADLINE_NS) -> Pairs:
        """Take pairs the far end makes with `create_keep`."""
        return Pairs(self, self._accept(None, deadline_ns), n)

    def create_prepare(
        self,
        basis: BasisArgument,
        n: int | None = None,
        *,
        rotation: tuple[float, float, float] | None = None,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> PreparedStates:
        """Prepare qubits at the far end by reading the own halves of pairs that it accepts.

        The far end has `accept` and is told neither basis nor outcome. Read is in `basis` (or one
        that is drawn, as in `create_measure`), after turns about X, Y and X by the three angles of
        `rotation` (radians). Which state the far qubit has then is in `Prepared.direction`.
        """
        turn = None if rotation is None else checks.rotation(rotation)
        choice = checks.basis_choice(basis)
        make = self._create(
            choice, min_fidelity, priority, deadline_ns, is_prepare=True, rotation=turn
        )
        return PreparedStates(self, make, n, turn)

    async def create_measure(
        self,
        n: int,
        basis: BasisArgument,
        *,
        min_fidelity: float | None = None,
        priority: int = 0,
        deadline_ns: int | None = DEADLINE_NS,
    ) -> MeasuredPairs:
        """Make `n` pairs and read each half at once in `basis`; also the far end reads its own.

        With probabilities (`{"Z": 0.9, "X": 0.1}`) this node draws the basis of each pair.
        """
        number, choice = checks.number(n), checks.basis_choice(basis)
        make = self._create(choice, min_fidelity, priority, deadline_ns)
        return await self._measured(lambda call: make(call, number), choice)

    async def accept_measure(
        self, n: int, basis: BasisArgument, *, deadline_ns: int | None = DEADLINE_NS
    ) -> MeasuredPairs:
        """Take `n` pairs the far end makes with `create_measure`, read in `basis` (as there)."""
        number, choice = checks.number(n), checks.basis_choice(basis)
        make = self._accept(choice, deadline_ns)
        return await self._measured(lambda call: make(call, number), choice)

    async def echo(self, pair: Pair, basis: str) -> int:
        """Have the far end read its half of a pair from this socket, which is open to port 0."""
        checked = checks.basis(basis)
        call = self.call(
            lambda number: transport.EchoMeasure(
                call=number, socket=self.number, pair=pair.id, basis=checked
            )
        )
        return (await self.node.connection.ask(call, transport.EchoResult)).outcome

    async def close(self) -> None:
        """Close the socket; its calls end with `Closed`."""
        for pairs in list(self.waiting):
            pairs.drop()
        self.node.connection.say(self._subject, transport.CloseSocket(socket=self.number))
        await trio.lowlevel.checkpoint()

    # --- inside ----------------------------------------------------------------------------------

    def call(self, make: Callable[[int], Message]) -> Call:
        """A call on this socket."""
        return Call(
            self._subject,
            lambda number: (make(number),),
            lambda number: transport.CancelCall(call=number),
            self.node.connection.give_back,
        )

    def pair(self, answer: transport.PairDelivered) -> Pair:
        """The pair that was delivered."""
        return Pair(
            qubit=self.node.take_qubit(answer.qubit, self.port),
            id=answer.pair,
            remote=answer.remote,
            bits=(answer.x_bit, answer.z_bit),
            goodness=answer.goodness,
            time_of_goodness_ns=answer.time_of_goodness_ns,
        )

    def _create(
        self,
        basis: BasisChoice | None,
        min_fidelity: float | None,
        priority: int,
        deadline_ns: int | None,
        *,
        is_prepare: bool = False,
        rotation: Rotation | None = None,
    ) -> _Make:
        if self.remote is None:
            raise BadRequest("this socket was opened without a remote: it can only accept")
        fidelity = self.min_fidelity if min_fidelity is None else checks.fidelity(min_fidelity)
        checked_priority = checks.priority(priority)
        within_ns = checks.deadline_ns(deadline_ns)
        return lambda call, number: transport.EprCreate(
            call=call,
            socket=self.number,
            number=number,
            basis=basis,
            min_fidelity=fidelity,
            priority=checked_priority,
            within_ns=within_ns,
            is_prepare=is_prepare,
            rotation=rotation,
        )

    def _accept(self, basis: BasisChoice | None, deadline_ns: int | None) -> _Make:
        within_ns = checks.deadline_ns(deadline_ns)
        return lambda call, number: transport.EprAccept(
            call=call, socket=self.number, number=number, basis=basis, within_ns=within_ns
        )

    async def _measured(self, make: Callable[[int], Message], choice: BasisChoice) -> MeasuredPairs:
        connection = self.node.connection
        call = self.call(make)
        connection.start(call)
        parts: list[transport.PairsMeasured] = []
        while isinstance(answer := await connection.take(call), transport.PairsMeasured):
            parts.append(answer)
        if not parts:
            raise Refused("the node finished without a pair", code="UNSUPPORTED")
        total = sum(part.pairs for part in parts)
        return MeasuredPairs(
            remote=parts[0].remote,
            outcomes=_bits([(part.outcomes, part.pairs) for part in parts]),
            x=_bits([(part.x_bits, part.pairs) for part in parts]),
            z=_bits([(part.z_bits, part.pairs) for part in parts]),
            bases=_letters([(part.bases, part.pairs) for part in parts], choice),
            goodness=sum(part.goodness * part.pairs for part in parts) / max(1, total),
        )


def _bits(parts: list[tuple[bytes, int]]) -> Bits:
    """One array of packed bits, the first in the highest bit of the first byte."""
    unpacked = [
        np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count) for packed, count in parts
    ]
    return np.concatenate(unpacked)


def _letters(parts: list[tuple[bytes, int]], choice: BasisChoice) -> Letters:
    """One array of the bases pairs were read in."""
    letters = np.array(BASES)
    fixed = fixed_code(choice)
    if fixed is not None:
        return np.repeat(letters[fixed], sum(count for _, count in parts))
    codes = np.concatenate([unpack_bases(packed, count) for packed, count in parts])
    read: Letters = letters[codes]
    return read
