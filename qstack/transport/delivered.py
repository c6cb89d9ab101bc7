"""Pairs handed to sessions, remembered so that the holder of one half learns of the other's end.

Rules
1. `QubitsFreed` names the qubits a session left behind: the far end of each gets VoidPair. A half
   the session had measured is not void for the far end, and is not in that list. But a half at an
   echo port is held to be asked about: when nobody can ask any more it gets VoidPair in any case.
2. Per session the latest DELIVERED_PAIRS_MAX are remembered. PairVoid of older ones is not told.
3. OwnerGone and QubitsFreed come in either order.
"""

from msgspec import Struct

from qstack.ids import PairId
from qstack.transport import messages, service
from qstack.transport.context import BoundedDict, Context
from qstack.transport.params import DELIVERED_PAIRS_MAX, DEPARTED_SESSIONS_MAX


class Delivered(Struct, eq=False):
    """One pair in the hands of a session. `flow` is set for pairs with an echo port."""

    session: str
    remote: str
    pair: PairId
    qubit: bytes
    flow: bytes | None


class DeliveredPairs:
    """The delivered pairs of this node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions: dict[str, BoundedDict[PairId, Delivered]] = {}
        self._departed: BoundedDict[str, BoundedDict[PairId, Delivered]] = BoundedDict(
            DEPARTED_SESSIONS_MAX
        )

    def __len__(self) -> int:
        return sum(len(pairs) for pairs in self._sessions.values())

    def add(self, delivered: Delivered) -> None:
        """Remember a pair that is being delivered."""
        session, pair = delivered.session, delivered.pair
        pairs = self._sessions.get(session)
        if pairs is None:
            pairs = self._sessions[session] = BoundedDict(DELIVERED_PAIRS_MAX)
        elif len(pairs) == DELIVERED_PAIRS_MAX:
            pairs.popitem(last=False)
        pairs[pair] = delivered

    def get(self, pair: PairId) -> Delivered | None:
        """The delivered pair, if its session lives and it is remembered."""
        of_pair = (pairs[pair] for pairs in self._sessions.values() if pair in pairs)
        return next(of_pair, None)

    def forget(self, pair: PairId) -> None:
        """Remember the pair no more."""
        delivered = self.get(pair)
        if delivered is not None:
            pairs = self._sessions[delivered.session]
            del pairs[pair]
            if not pairs:
                del self._sessions[delivered.session]

    def void(self, pair: PairId) -> bool:
        """Tell the session that the far half is gone. Whether there was anybody to tell."""
        delivered = self.get(pair)
        if delivered is None:
            return False
        self.forget(pair)
        indication = service.PairVoid(qubit=delivered.qubit, pair=pair)
        self._context.tell(delivered.session, indication)
        return True

    def of_flow(self, remote: str, flow: bytes) -> list[PairId]:
        """The pairs of a flow to an echo port that can be asked about, oldest first."""
        return [
            delivered.pair
            for pairs in self._sessions.values()
            for delivered in pairs.values()
            if (delivered.remote, delivered.flow) == (remote, flow)
        ]

    def end_echo(self, session: str, remote: str) -> None:
        """The session asks the remote's echo port nothing more: its pairs with it are void."""
        if session not in self._sessions:
            return
        for delivered in list(self._sessions[session].values()):
            if delivered.flow is not None and delivered.remote == remote:
                self.void(delivered.pair)
                self._tell_far_end(delivered)

    def on_session_gone(self, session: str) -> None:
        """No more indications to this session; its pairs wait for QubitsFreed."""
        pairs = self._sessions.pop(session, None)
        if pairs is not None:
            left: BoundedDict[PairId, Delivered] = BoundedDict(DELIVERED_PAIRS_MAX)
            for pair, delivered in pairs.items():
                if delivered.flow is None:
                    left.put(pair, delivered)
                else:
                    self._tell_far_end(delivered)
            self._departed.put(session, left)

    def on_qubits_freed(self, owner: str, qubits: list[bytes]) -> None:
        """Tell the far ends of these qubits that their halves are void."""
        pairs = self._departed.pop(owner, None)
        if pairs is None:
            pairs = self._sessions.pop(owner, BoundedDict(DELIVERED_PAIRS_MAX))
        by_qubit = {delivered.qubit: delivered for delivered in pairs.values()}
        freed = [by_qubit[qubit] for qubit in qubits if qubit in by_qubit]
        asked = [each for each in pairs.values() if each.flow is not None]
        for delivered in dict.fromkeys([*freed, *asked]):
            self._tell_far_end(delivered)

    def on_device_lost(self) -> None:
        """All qubits are gone; what the far ends' halves are worth only the sessions know.

        Those at an echo port are worth nothing.
        """
        for pairs in self._sessions.values():
            for delivered in pairs.values():
                if delivered.flow is not None:
                    self._tell_far_end(delivered)
        self._sessions.clear()
        self._departed.clear()

    def _tell_far_end(self, delivered: Delivered) -> None:
        message = messages.VoidPair(pair=delivered.pair)
        self._context.channels.send_kept(delivered.remote, message)
