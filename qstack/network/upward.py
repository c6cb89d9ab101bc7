"""Indications to the layer above that are alike at head and tail."""

from qstack.link.service import LinkMeasured
from qstack.network import service
from qstack.network.circuit import Circuit
from qstack.network.end import Confirmed
from qstack.network.messages import Forward, Side
from qstack.network.outbox import TRANSPORT, Outbox
from qstack.physical import service as physical


def end_pair(
    out: Outbox, circuit: Circuit, forward: Forward, side: Side, confirmed: Confirmed
) -> None:
    """Hand a confirmed pair and its qubit to the layer above."""
    out.tell(physical.LAYER, physical.Transfer(call=None, qubit=confirmed.qubit, to=TRANSPORT))
    out.tell(
        TRANSPORT,
        service.EndPair(
            request=forward.request,
            purpose=forward.purpose,
            remote=circuit.tail if side == "head" else circuit.head,
            side=side,
            kind=forward.kind,
            pair=confirmed.pair,
            qubit=confirmed.qubit,
            x_bit=confirmed.x_bit,
            z_bit=confirmed.z_bit,
            emitted_at_ns=confirmed.emitted_at_ns,
            goodness=circuit.install.fidelity,
            time_of_goodness_ns=out.now,
            basis=forward.basis if side == "head" else forward.remote_basis,
        ),
    )


def end_measured(
    out: Outbox, circuit: Circuit, forward: Forward, side: Side, measured: LinkMeasured
) -> None:
    """Hand the outcomes of measured pairs to the layer above."""
    out.tell(
        TRANSPORT,
        service.EndMeasured(
            request=forward.request,
            purpose=forward.purpose,
            remote=circuit.tail if side == "head" else circuit.head,
            side=side,
            pairs=measured.pairs,
            outcomes=measured.outcomes,
            x_bits=measured.x_bits,
            z_bits=measured.z_bits,
            bases=measured.bases,
            goodness=measured.goodness,
        ),
    )
