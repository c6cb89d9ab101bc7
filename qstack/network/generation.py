"""Link requests of circuits: each node has pairs made on its downstream link while they are needed.

Rules
1. While a request with pairs to keep is open on a circuit of several links, one link request for
   keep pairs, without number, is open on the downstream link: how many a pair takes nobody knows.
   On a circuit of one link the head asks for as many as its requests need, and again for what more
   is needed, KEEP_REQUESTS_MAX times at once. The last request to end withdraws what is open.
2. A `measure` request over a single link is one link request of its own, with its number. Both ends
   know its id without a message: it is a hash of circuit and request.
3. A link runs at the circuit's link fidelity, or at its own best if that is less.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from qstack.ids import ID_BYTES, FreshIds, RequestId
from qstack.link import service as link
from qstack.network.circuit import Circuit
from qstack.network.link_state import LinkStateDatabase
from qstack.network.messages import Forward
from qstack.network.outbox import Outbox
from qstack.network.params import KEEP_REQUESTS_MAX, NUMBER_MAX


def is_direct(circuit: Circuit, forward: Forward) -> bool:
    """Whether the link layer itself reads the qubits of this request."""
    return forward.kind == "measure" and circuit.is_single_link


def direct_request_id(circuit: Circuit, request: bytes) -> RequestId:
    """The id of the link request of a direct `measure` request, equal at both ends."""
    return RequestId(blake2b(circuit.id + request, digest_size=ID_BYTES).digest())


@dataclass(frozen=True)
class Direct:
    """A `measure` request whose pairs the link layer reads."""

    circuit: bytes
    request: bytes


class Generation:
    """What this node has asked of the link layer for its circuits."""

    def __init__(self, database: LinkStateDatabase, ids: FreshIds, out: Outbox) -> None:
        self._database = database
        self._ids = ids
        self._out = out
        self._keep: dict[bytes, dict[bytes, int]] = {}  # circuit, link request: pairs to come
        self._direct: dict[bytes, Direct] = {}
        self._needs: Callable[[Circuit], int]

    def join(self, needs: Callable[[Circuit], int]) -> None:
        """Know how many more pairs the requests of a circuit need whose head this node is."""
        self._needs = needs

    def begin(self, circuit: Circuit, forward: Forward) -> None:
        """A request is open on the circuit from now on."""
        circuit.requests[forward.request] = forward
        if is_direct(circuit, forward):
            link_request = direct_request_id(circuit, forward.request)
            self._direct[link_request] = Direct(circuit.id, forward.request)
            if circuit.downstream is not None:
                self._create(circuit, forward, link_request, forward.number)
        else:
            self.have_pairs_made(circuit)

    def end(self, circuit: Circuit, request: bytes, *, is_served: bool = False) -> None:
        """A request is not open on the circuit any more; `is_served`: it has all its pairs."""
        forward = circuit.requests.pop(request, None)
        if forward is None:
            return
        if is_direct(circuit, forward):
            link_request = direct_request_id(circuit, request)
            if self._direct.pop(link_request, None) is not None and circuit.upstream is None:
                self._out.tell(link.LAYER, link.LinkCancel(request=link_request))
        elif all(is_direct(circuit, other) for other in circuit.requests.values()):
            self._cancel_keep(circuit)
        elif not is_served and self._has_too_many(circuit):
            self._cancel_keep(circuit)
            self.have_pairs_made(circuit)

    def end_all(self, circuit: Circuit) -> None:
        """The circuit has ended."""
        for request in list(circuit.requests):
            self.end(circuit, request)
        self._cancel_keep(circuit)

    def direct(self, link_request: bytes) -> Direct | None:
        """The request whose measured pairs come under this link request."""
        return self._direct.get(link_request)

    def direct_done(self, link_request: bytes) -> None:
        """All its pairs have come: there is nothing left to withdraw."""
        self._direct.pop(link_request, None)

    def is_ours(self, circuit: Circuit, link_request: bytes) -> bool:
        """Whether we asked for this link request, and still need it."""
        if circuit.downstream is None:
            return False
        return link_request in self._keep.get(circuit.id, ()) or link_request in self._direct

    def came(self, circuit: Circuit, link_request: bytes) -> None:
        """A pair to keep has come."""
        asked = self._keep.get(circuit.id)
        if asked is not None and asked.get(link_request, 0):
            asked[link_request] -= 1

    def done(self, circuit: Circuit, link_request: bytes) -> None:
        """All pairs of a link request have come: it leaves room for another one."""
        asked = self._keep.get(circuit.id)
        if asked is not None and asked.pop(link_request, None) is not None:
            self.have_pairs_made(circuit)

    def again(self, circuit: Circuit, link_request: bytes, *, is_hopeless: bool = False) -> bool:
        """A link request ran out of time; ask again if somebody still has some.

        A link request carries the latest deadline known when it was made. Of one that is hopeless
        so many pairs cannot be had by then: what comes is taken.
        """
        self._keep.get(circuit.id, {}).pop(link_request, None)
        late = [r for r in _keeping(circuit) if r.deadline_ns > self._out.now]
        if late:
            self.have_pairs_made(circuit, takes_what_comes=is_hopeless)
        return bool(late)

    def have_pairs_made(self, circuit: Circuit, *, takes_what_comes: bool = False) -> None:
        """Ask the link for what the requests on the circuit need and nobody has asked for yet.

        `takes_what_comes`: for as many as there are until the deadline.
        """
        if circuit.downstream is None:
            return
        asked = self._keep.setdefault(circuit.id, {})
        number = None
        if circuit.is_single_link:
            if len(asked) >= KEEP_REQUESTS_MAX:
                return
            number = self._needs(circuit) - sum(asked.values())
            if number <= 0:
                return
        elif asked:
            return
        keeping = _keeping(circuit)
        if not keeping:
            return
        number = None if number is None or takes_what_comes else min(number, NUMBER_MAX)
        longest = max(keeping, key=lambda forward: forward.deadline_ns)
        link_request = RequestId(self._ids.fresh())
        asked[link_request] = number or 0
        self._create(circuit, longest, link_request, number)

    def _create(
        self, circuit: Circuit, forward: Forward, link_request: RequestId, number: int | None
    ) -> None:
        assert circuit.downstream is not None, "the tail asks for nothing"
        direct = is_direct(circuit, forward)
        up = self._database.links.get(circuit.downstream)
        best = up.best_fidelity if up is not None else 1.0
        self._out.tell(
            link.LAYER,
            link.LinkCreate(
                request=link_request,
                peer=circuit.downstream,
                purpose=circuit.id,
                kind="measure" if direct else "keep",
                number=number,
                min_fidelity=min(circuit.install.link_min_fidelity, best),
                deadline_ns=forward.deadline_ns,
                priority=max(request.priority for request in circuit.requests.values()),
                basis=forward.basis if direct else None,
                peer_basis=forward.remote_basis if direct else None,
                atomic=False,
                consecutive=True,
            ),
        )

    def _has_too_many(self, circuit: Circuit) -> bool:
        """Whether more pairs are coming than anybody needs: a request was withdrawn."""
        to_come = sum(self._keep.get(circuit.id, {}).values())
        return to_come > 0 and to_come > self._needs(circuit)

    def _cancel_keep(self, circuit: Circuit) -> None:
        for link_request in self._keep.pop(circuit.id, {}):
            self._out.tell(link.LAYER, link.LinkCancel(request=RequestId(link_request)))


def _keeping(circuit: Circuit) -> list[Forward]:
    return [forward for forward in circuit.requests.values() if not is_direct(circuit, forward)]
