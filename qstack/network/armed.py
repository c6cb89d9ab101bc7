"""Swaps that do not wait for a daemon: a waiting pair is armed to be swapped at the next herald.

    pair q1 waits alone ------> Arm(q1, next herald of the other link's request)
                                   |  herald of q2: the device Bell-measures q1 and q2
    LinkPair q2 --> Disarm ------> |
                                   v
    ProgramResult (q1, q2): swapped | CallFailed: not begun, so BellMeasure as ever

Rules
1. What the device says decides. The herald of the second pair may have been on its way when the
   first was armed, so when it is announced the program is withdrawn, and the answer awaited.
2. One pair of a circuit is armed at a time, the oldest that waits alone: what the device swaps is
   what rule 1 of `relay.py` would.
3. A link's request is known by its pairs: the first pair of each is swapped as ever.
4. What a program has taken and nobody has announced is void, and so is what it was swapped with.
"""

from dataclasses import dataclass
from typing import Final

from qstack.errors import ErrorCode
from qstack.ids import link_id
from qstack.link.service import LinkPair
from qstack.network.circuit import Circuit
from qstack.network.messages import Side
from qstack.network.outbox import Outbox
from qstack.network.pair_states import SegmentInput
from qstack.network.relay import Relay, Swap, Swaps
from qstack.physical import service as physical
from qstack.physical.program import Arm, Disarm, Place, ProgramResult, swap_program

OTHER: Final[dict[Side, Side]] = {"head": "tail", "tail": "head"}


@dataclass
class _Armed:
    """A program the device has. `swap`: the second pair was announced, the answer is awaited."""

    circuit: bytes
    link: str
    swap: Swap | None = None


class ArmedSwaps:
    """The programs of this node's circuits, by call number."""

    def __init__(self, swaps: Swaps, out: Outbox) -> None:
        self._swaps = swaps
        self._out = out
        self._open: dict[int, _Armed] = {}
        self._refused: dict[str, None] = {}  # links whose heralds the device does not take

    def is_offered(self, link: str) -> bool:
        """Whether the device may be asked."""
        return link not in self._refused

    def arm(self, circuit: bytes, link: str, places: tuple[Place, Place], until_ns: int) -> int:
        """Have two qubits swapped when both are there; the number of the call."""
        call = self._swaps.next_call()
        self._open[call] = _Armed(circuit, link)
        both, steps = swap_program(*places)
        asked = Arm(call=call, places=both, steps=steps, deadline_ns=until_ns)
        self._out.tell(physical.LAYER, asked)
        return call

    def settle(self, call: int, swap: Swap) -> None:
        """The second pair has been announced: has the device swapped it?"""
        self._open[call].swap = swap
        self._out.tell(physical.LAYER, Disarm(program=call))

    def circuit_of(self, call: int) -> bytes | None:
        """Whose program a call is; None if it is none."""
        armed = self._open.get(call)
        return None if armed is None else armed.circuit

    def on_result(self, result: ProgramResult, relay: "ArmedRelay | None") -> None:
        """A program has run."""
        swap = self._open.pop(result.call).swap
        is_swapped = (
            swap is not None and result.error is None and {*result.qubits} == {*swap.qubits}
        )
        if swap is not None and is_swapped:
            if relay is not None:
                relay.on_swapped(swap, (result.bits[0], result.bits[1]))
        elif swap is not None:
            for qubit in swap.qubits:  # one of them may have survived
                self._out.tell(physical.LAYER, physical.Free(qubit=qubit))
            if relay is not None:
                relay.on_swap_failed(swap)
        if relay is not None:
            relay.on_program_over(result.call, [] if is_swapped else result.qubits)

    def on_failed(self, failed: physical.CallFailed, relay: "ArmedRelay | None") -> None:
        """A program has not begun: what it was to swap is as it was."""
        armed = self._open.pop(failed.call)
        if failed.error == ErrorCode.UNSUPPORTED.name:
            self._refused[armed.link] = None
        if armed.swap is not None:
            self._swaps.begin(armed.swap)
        if relay is not None:
            relay.on_program_over(failed.call, [])

    def clear(self) -> None:
        """The device has gone; the next one may offer more."""
        self._open.clear()
        self._refused.clear()


class ArmedRelay(Relay):
    """A relay whose waiting pairs are armed."""

    def __init__(self, circuit: Circuit, swaps: Swaps, armed: ArmedSwaps, out: Outbox) -> None:
        super().__init__(circuit, swaps, out)
        self._armed = armed
        self._requests: dict[Side, bytes] = {}  # the link request of the last pair of each side
        self._call: int | None = None
        self._pair = b""  # that is armed
        self._tried = b""  # the last that was

    def on_link_pair(self, message: LinkPair) -> None:
        """A link pair of either side; of what waits then the oldest is armed."""
        self._requests[self._side_of(message)] = message.request
        super().on_link_pair(message)
        self._arm_oldest()

    def on_program_over(self, call: int, taken: list[bytes]) -> None:
        """A program has been answered; what it has `taken` for nothing is void."""
        if call == self._call:
            self._call, self._pair = None, b""
        for waiting in self._waiting.values():
            for segment in [each for each in waiting.values() if each.qubit in taken]:
                self._out.record("taken", circuit=self.circuit.id, pair=segment.pair)
                self._discard(segment, SegmentInput.VOID)
        self._arm_oldest()

    def _begin(self, swap: Swap) -> None:
        if self._call is None or self._pair not in (swap.first, swap.second):
            super()._begin(swap)
            return
        self._armed.settle(self._call, swap)

    def _arm_oldest(self) -> None:
        """Arm what waits alone, where nothing is armed and the other side's request is known."""
        side: Side = "head" if self._waiting["head"] else "tail"
        oldest = next(iter(self._waiting[side].values()), None)
        peer = self.circuit.downstream if side == "head" else self.circuit.upstream
        request = self._requests.get(OTHER[side])
        if oldest is None or self._call is not None or peer is None or request is None:
            return
        link = link_id(self._out.node, peer)
        if oldest.pair == self._tried or not self._armed.is_offered(link):
            return
        self._pair = self._tried = oldest.pair
        mine, coming = Place(qubit=oldest.qubit), Place(link=link, token=request)
        places = (mine, coming) if side == "head" else (coming, mine)
        self._call = self._armed.arm(self.circuit.id, link, places, oldest.void_at_ns)
