"""What stands in for a layer that is away answers what would be waited for, and nothing else."""

import pytest

from qstack.link import service as link
from qstack.machine import Effect, Event, OwnerGone, PeerUp, Tell, TimerFired, Told
from qstack.network import service as network
from qstack.physical import service as physical
from qstack.runtime.absent_layer import AbsentLayer, NotedCalls
from qstack.transport import service as transport
from qstack.wire.message import Message

ID = bytes(16)
LOST = "LAYER_LOST"
CREATE = link.LinkCreate(
    request=ID, peer="bob", purpose=ID, kind="keep", number=1, min_fidelity=0.5, deadline_ns=9,
    priority=0, basis=None, peer_basis=None, atomic=False, consecutive=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "said", "answer"),
    [
        (
            "physical",
            physical.Allocate(call=3),
            physical.CallFailed(call=3, error=LOST, detail="the physical layer"),
        ),
        (
            "link",
            CREATE,
            link.LinkFailed(request=ID, purpose=ID, error=LOST, detail="the link layer", best=None),
        ),
        (
            "network",
            network.RouteQuery(call=4, remote="bob"),
            network.RouteAnswer(call=4, path=[], fidelity=0.0, rate_hz=0.0),
        ),
        (
            "transport",
            transport.RouteAsk(call=5, remote="bob"),
            transport.Failed(call=5, error=LOST, detail="the transport layer", best=None),
        ),
        ("transport", transport.CancelCall(call=5), None),
        ("transport", transport.CloseSocket(socket=1), None),
        ("physical", physical.Free(qubit=ID), None),
        ("physical", physical.Transfer(call=None, qubit=ID, to="transport"), None),
        ("link", link.LinkCancel(request=ID), None),
        ("network", network.NetworkCancel(request=ID), None),
    ],
)
def test_what_is_asked_is_answered(layer: str, said: Message, answer: Message | None) -> None:
    effects: list[Effect] = [] if answer is None else [Tell("asker", answer)]
    assert AbsentLayer(layer).handle(Told("asker", said), 7) == effects


@pytest.mark.parametrize("event", [TimerFired("a"), PeerUp("bob", bytes(8)), OwnerGone("app/1")])
def test_all_else_is_dropped(event: Event) -> None:
    assert AbsentLayer("link").handle(event, 7) == []


def test_it_says_of_itself_what_the_layer_would_and_that_it_is_away() -> None:
    assert AbsentLayer("link").summary() == {
        "is_away": True,
        "links_up": [],
        "open_requests": 0,
        "estimates": [],
    }


class Physical:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.answers: list[Effect] = []

    def handle(self, event: Event, now: int) -> list[Effect]:
        del event, now
        return self.answers


def test_sessions_hear_of_their_open_calls_and_that_their_qubits_are_gone() -> None:
    below = Physical()
    noted = NotedCalls(below)
    noted.handle(Told("app/1", physical.Allocate(call=1)), 0)
    noted.handle(Told("app/1", physical.Allocate(call=2)), 0)
    noted.handle(Told("app/2", physical.Allocate(call=1)), 0)
    noted.handle(Told("app/3", physical.Allocate(call=1)), 0)
    noted.handle(Told("network", physical.Allocate(call=9)), 0)
    noted.handle(Told("transport", physical.Transfer(call=None, qubit=ID, to="app/4")), 0)
    below.answers = [Tell("app/1", physical.Allocated(call=1, qubit=ID))]
    noted.handle(OwnerGone("app/3"), 0)
    failed = "the physical layer"
    assert noted.last_words() == [
        Tell("app/1", physical.CallFailed(call=2, error=LOST, detail=failed)),
        Tell("app/1", physical.DeviceLost()),
        Tell("app/2", physical.CallFailed(call=1, error=LOST, detail=failed)),
        Tell("app/2", physical.DeviceLost()),
        Tell("app/4", physical.DeviceLost()),
    ]
