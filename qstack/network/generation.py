"""Link requests of circuits: each node has pairs made on its downstream link while they are needed.

Rules
1. While a request with pairs to keep is open on a circuit, one link request for keep pairs, without
   number, is open on the downstream link. It is withdrawn when the last one ends.
2. A `measure` request over a single link is one link request of its own, with its number. Both ends
   know its id without a message: it is a hash of circuit and request.
3. A link runs at the circuit's link fidelity, or at its own best if that is less.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from qstack.ids import ID_BYTES, RequestId
from qstack.link import service as link
from qstack.network.circuit import Circuit
from qstack.network.link_state import LinkStateDatabase
from qstack.network.messages import Forward
from qstack.network.outbox import Outbox


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

    def __init__(self, database: LinkStateDatabase, rng: np.random.Generator, out: Outbox) -> None:
        self._database = database
        self._rng = rng
        self._out = out
        self._keep: dict[bytes, RequestId] = {}  # circuit to link request
        self._direct: dict[bytes, Direct] = {}

    def begin(self, circuit: Circuit, forward: Forward) -> None:
        """A request is open on the circuit from now on."""
        circuit.requests[forward.request] = forward
        if is_direct(circuit, forward):
            link_request = direct_request_id(circuit, forward.request)
            self._direct[link_request] = Direct(circuit.id, forward.request)
            if circuit.downstream is not None:
                self._create(circuit, forward, link_request)
        else:
            self._have_pairs_made(circuit)

    def end(self, circuit: Circuit, request: bytes) -> None:
        """A request is not open on the circuit any more."""
        forward = circuit.requests.pop(request, None)
        if forward is None:
            return
        if is_direct(circuit, forward):
            link_request = direct_request_id(circuit, request)
            if self._direct.pop(link_request, None) is not None and circuit.upstream is None:
                self._out.tell(link.LAYER, link.LinkCancel(request=link_request))
        elif not _keeping(circuit):
            self._cancel_keep(circuit)

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
        return self._keep.get(circuit.id) == link_request or link_request in self._direct

    def again(self, circuit: Circuit) -> bool:
        """The link request ran out of time; ask again if somebody still has some.

        A link request carries the latest deadline known when it was made.
        """
        self._keep.pop(circuit.id, None)
        late = [r for r in _keeping(circuit) if r.deadline_ns > self._out.now]
        if late:
            self._have_pairs_made(circuit)
        return bool(late)

    def _have_pairs_made(self, circuit: Circuit) -> None:
        if circuit.downstream is None or circuit.id in self._keep:
            return
        keeping = _keeping(circuit)
        longest = max(keeping, key=lambda forward: forward.deadline_ns)
        link_request = RequestId(self._rng.bytes(ID_BYTES))
        self._keep[circuit.id] = link_request
        self._create(circuit, longest, link_request)

    def _create(self, circuit: Circuit, forward: Forward, link_request: RequestId) -> None:
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
                number=forward.number if direct else None,
                min_fidelity=min(circuit.install.link_min_fidelity, best),
                deadline_ns=forward.deadline_ns,
                priority=max(request.priority for request in circuit.requests.values()),
                basis=forward.basis if direct else None,
                peer_basis=forward.remote_basis if direct else None,
            ),
        )

    def _cancel_keep(self, circuit: Circuit) -> None:
        link_request = self._keep.pop(circuit.id, None)
        if link_request is not None:
            self._out.tell(link.LAYER, link.LinkCancel(request=link_request))


def _keeping(circuit: Circuit) -> list[Forward]:
    return [forward for forward in circuit.requests.values() if not is_direct(circuit, forward)]
