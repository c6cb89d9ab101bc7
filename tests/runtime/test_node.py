"""A node: the order of events, run to completion, timers, and what the loss of a peer voids."""

from collections import defaultdict

from qstack.ids import layer_boot_id
from qstack.link import messages as link_messages
from qstack.machine import (
    FABRIC,
    CancelTimer,
    Effect,
    Event,
    FromPeer,
    LayerGoneError,
    LayerUp,
    OpenChannel,
    OwnerGone,
    PeerDown,
    PeerUp,
    Record,
    Send,
    SetTimer,
    Tell,
    TimerFired,
    Told,
)
from qstack.physical.service import DeviceReady, Free
from qstack.runtime.life_messages import LayerBegun, LayerGone, LayerKnown
from qstack.runtime.lives import LAYERS
from qstack.runtime.node import (
    CANCELLED_MIN,
    LayerAway,
    LayerDue,
    Node,
    Noted,
    Output,
    Timing,
    ToFabric,
    ToOpen,
    ToPeer,
    ToSession,
)
from qstack.runtime.session_messages import Sleep
from qstack.transport.service import CancelCall, CloseSocket

EVENT_NS, CALL_NS = 10, 30
LIFE = b"12345678"


class Scripted:
    """A machine that notes what it is told and answers by the kind of event."""

    def __init__(self, name: str, log: list[tuple[str, int, Event]]) -> None:
        self.name = name
        self.log = log
        self.answers: dict[str, list[Effect]] = defaultdict(list)
        self.is_running = False

    def handle(self, event: Event, now: int) -> list[Effect]:
        assert not self.is_running
        self.is_running = True
        self.log.append((self.name, now, event))
        message = getattr(event, "message", None)
        self.is_running = False
        return self.answers[type(message or event).__name__]


class World:
    def __init__(self) -> None:
        self.log: list[tuple[str, int, Event]] = []
        self.machines = {name: Scripted(name, self.log) for name in LAYERS}
        machines = {**self.machines}
        self.node = Node("alice", LIFE, {**machines}, Timing(EVENT_NS, CALL_NS), None)

    def run(self) -> list[Output]:
        outputs: list[Output] = []
        while self.node.next_event_ns is not None:
            outputs += self.node.step()
        return outputs

    def heard(self, layer: str) -> list[tuple[int, Event]]:
        return [(now, event) for name, now, event in self.log if name == layer]

    def timer(self, at_ns: int, key: str = "k", *, background: bool = False) -> None:
        """The transport arms a timer (by an application's call at time 0)."""
        self.machines["transport"].answers["CloseSocket"] = [SetTimer(key, at_ns, background)]
        self.node.call("app/0", 0, 0, CloseSocket(socket=0))
        self.node.step()


def test_messages_and_calls_are_handled_after_their_processing_time() -> None:
    world = World()
    world.node.message_arrived(FABRIC, 0, 100, DeviceReady())
    world.node.call("app/1", 0, 100, CloseSocket(socket=1))
    world.run()
    assert world.heard("physical") == [(110, FromPeer(FABRIC, DeviceReady()))]
    assert world.heard("transport") == [(130, Told("app/1", CloseSocket(socket=1)))]


def test_events_of_one_time_are_ordered_by_source_and_sequence() -> None:
    world = World()
    for source, sequence in (("carol", 0), ("bob", 1), ("bob", 0)):
        world.node.message_arrived(source, sequence, 5, CloseSocket(socket=sequence))
    world.node.message_arrived("zoe", 0, 4, CloseSocket(socket=0))
    world.run()
    order = [(event.peer, event.message.socket)
             for _, event in world.heard("transport")]  # fmt: skip
    assert order == [("zoe", 0), ("bob", 0), ("bob", 1), ("carol", 0)]


def test_everything_that_follows_is_done_before_the_next_event() -> None:
    world = World()
    world.machines["transport"].answers["CloseSocket"] = [
        Tell("link", DeviceReady()),
        Tell("network", DeviceReady()),
    ]
    world.machines["link"].answers["DeviceReady"] = [Tell("physical", Free(qubit=bytes(16)))]
    for sequence in (0, 1):
        world.node.call("app/0", sequence, 0, CloseSocket(socket=sequence))
    world.run()
    names = [name for name, _, _ in world.log]
    assert names == ["transport", "link", "network", "physical"] * 2
    assert world.heard("physical")[0] == (30, Told("link", Free(qubit=bytes(16))))


def test_effects_that_leave_the_node_are_outputs_with_their_time() -> None:
    world = World()
    message = CancelCall(call=4)
    world.machines["session"].answers["Sleep"] = [
        Send("bob", message),
        Send(FABRIC, message),
        Tell("app/7", message),
        OpenChannel("carol"),
        Record("session.test", {"a": 1}),
    ]
    world.node.call("app/7", 0, 70, Sleep(call=1, span_ns=1))
    assert world.run() == [
        ToPeer("bob", 100, message),
        ToFabric(100, message),
        ToSession("app/7", 100, message),
        ToOpen("carol", 100),
        Noted(100, "session", "session.test", {"a": 1}),
    ]


def test_the_end_of_a_session_and_channels_are_told_to_every_layer() -> None:
    world = World()
    world.node.peer_up("bob", LIFE, 5)
    world.run()
    world.node.session_ended("app/1", 3, 6)
    world.node.peer_down("bob", 50)
    world.run()
    for layer in LAYERS:
        assert world.heard(layer) == [
            (5, PeerUp("bob", LIFE)),
            (6 + CALL_NS, OwnerGone("app/1")),
            (50, PeerDown("bob")),
        ]


def test_a_timer_fires_once_when_it_is_due() -> None:
    world = World()
    world.timer(500)
    world.run()
    assert world.heard("transport")[1:] == [(500, TimerFired("k"))]
    assert not world.node.has_demand


def test_a_timer_for_the_past_fires_now() -> None:
    world = World()
    world.timer(1)
    world.run()
    assert world.heard("transport")[1:] == [(30, TimerFired("k"))]


def test_a_timer_armed_again_fires_at_its_new_time_only() -> None:
    world = World()
    world.timer(500)
    world.timer(800)
    assert world.node.next_event_ns == 800
    world.run()
    assert [at for at, event in world.heard("transport") if event == TimerFired("k")] == [800]


def test_a_cancelled_timer_does_not_fire() -> None:
    world = World()
    world.timer(500)
    world.machines["transport"].answers["CancelCall"] = [CancelTimer("k"), CancelTimer("none")]
    world.node.call("app/0", 1, 40, CancelCall(call=1))
    world.node.step()
    assert world.node.next_event_ns is None
    assert not world.node.has_demand


def test_timers_of_two_layers_with_one_key_are_two() -> None:
    world = World()
    world.machines["link"].answers["DeviceReady"] = [SetTimer("k", 300)]
    world.node.message_arrived("bob", 0, 0, CloseSocket(socket=0))
    world.machines["transport"].answers["CloseSocket"] = [
        SetTimer("k", 400),
        Tell("link", DeviceReady()),
    ]
    world.run()
    assert (300, TimerFired("k")) in world.heard("link")
    assert (400, TimerFired("k")) in world.heard("transport")


def test_housekeeping_is_no_demand() -> None:
    world = World()
    assert not world.node.has_demand
    world.timer(500, background=True)
    assert world.node.next_event_ns == 500
    assert not world.node.has_demand
    world.timer(500, key="other")
    assert world.node.has_demand
    world.run()
    assert not world.node.has_demand


def test_a_housekeeping_timer_that_becomes_urgent_is_demand() -> None:
    world = World()
    world.timer(500, background=True)
    world.timer(500)
    assert world.node.has_demand
    world.timer(500, background=True)
    assert not world.node.has_demand


def test_what_arrived_by_a_lost_channel_is_void() -> None:
    world = World()
    world.node.peer_up("bob", LIFE, 0)
    world.node.step()
    world.node.message_arrived("bob", 0, 100, CloseSocket(socket=0))
    world.node.message_arrived("carol", 0, 100, CloseSocket(socket=1))
    world.node.peer_down("bob", 50)
    world.node.message_arrived("bob", 0, 200, CloseSocket(socket=2))
    world.run()
    sockets = [event.message.socket for _, event in world.heard("transport")
               if isinstance(event, FromPeer)]  # fmt: skip
    assert sockets == [1, 2]
    assert not world.node.has_demand


def test_a_channel_announced_by_a_dead_life_does_not_come_up() -> None:
    world = World()
    world.node.peer_up("bob", LIFE, 100)
    world.node.peer_down("bob", 50)
    world.run()
    assert world.heard("link") == []
    assert not world.node.is_up("bob")
    world.node.peer_up("bob", b"abcdefgh", 60)
    world.run()
    assert world.heard("link") == [(60, PeerUp("bob", b"abcdefgh"))]
    assert world.node.is_up("bob")


def test_a_channel_is_told_of_once_in_a_life() -> None:
    world = World()
    for at_ns in (1, 2):
        world.node.peer_up("bob", LIFE, at_ns)
    world.node.peer_up("bob", b"abcdefgh", 3)
    world.run()
    for at_ns in (4, 5):
        world.node.peer_down("bob", at_ns)
        world.run()
    assert [at for at, _ in world.heard("link")] == [1, 3, 4]


def test_a_channel_that_cannot_be_had_is_told_though_it_never_was_up() -> None:
    world = World()
    world.node.channel_refused("zoe", 9)
    world.run()
    assert world.heard("transport") == [(9, PeerDown("zoe"))]


def test_a_late_event_never_turns_time_back() -> None:
    world = World()
    world.node.message_arrived("bob", 0, 100, CloseSocket(socket=0))
    world.run()
    world.node.message_arrived("bob", 1, 50, CloseSocket(socket=1))
    world.run()
    assert [at for at, _ in world.heard("transport")] == [110, 110]


def test_timers_that_are_cancelled_or_armed_again_do_not_pile_up() -> None:
    world = World()
    world.timer(10**12, key="other")
    for _ in range(5000):
        world.timer(10**12)
    assert len(world.node._heap) < 2 * CANCELLED_MIN + 4
    world.run()
    assert [event for _, event in world.heard("transport") if isinstance(event, TimerFired)] == [
        TimerFired("other"),
        TimerFired("k"),
    ]


# --- a layer dies alone --------------------------------------------------------------------------


class Mortal(Scripted):
    """A machine whose process may have gone."""

    is_gone = False

    def handle(self, event: Event, now: int) -> list[Effect]:
        if self.is_gone:
            raise LayerGoneError("it has ended")
        return super().handle(event, now)


def with_mortal_link() -> tuple[World, Mortal]:
    world = World()
    link = Mortal("link", world.log)
    world.node.machines["link"] = link
    world.node.peer_up("bob", LIFE, 0)
    world.run()
    world.log.clear()
    return world, link


def begin_link(world: World, at_ns: int) -> Scripted:
    link = Scripted("link", world.log)
    world.node.layer_came("link", lambda _: link, at_ns)
    return link


def test_a_layer_that_is_found_dead_is_told_to_the_others_and_the_peers() -> None:
    world, link = with_mortal_link()
    link.answers["DeviceReady"] = [SetTimer("k", 900)]
    world.machines["transport"].answers["CloseSocket"] = [
        Tell("link", DeviceReady()),
        Tell("network", DeviceReady()),
    ]
    world.node.call("app/1", 0, 0, CloseSocket(socket=0))
    world.node.step()
    link.is_gone = True
    world.log.clear()
    world.node.call("app/1", 1, 100, CloseSocket(socket=0))
    outputs = world.node.step()
    assert outputs == [
        ToPeer("bob", 130, LayerGone(layer="link")),
        LayerAway("link", 130, "it has ended"),
    ]
    gone = (130, OwnerGone("link"))
    assert world.heard("network") == [(130, Told("transport", DeviceReady())), gone]
    assert world.heard("physical") == world.heard("session") == [gone]
    assert world.node.next_event_ns is None, "its timer went with it"


def test_a_death_that_is_seen_from_outside_counts_for_that_life_only() -> None:
    world, link = with_mortal_link()
    world.node.layer_gone("link", link, 100)
    world.node.layer_gone("link", link, 100)
    away = [output for output in world.run() if isinstance(output, LayerAway)]
    assert away == [LayerAway("link", 100 + CALL_NS, "its process has ended")]
    begin_link(world, 200)
    world.node.layer_gone("link", link, 300)
    assert not [output for output in world.run() if isinstance(output, LayerAway)]


def test_a_layer_that_is_due_is_asked_for_unless_it_is_there() -> None:
    world, link = with_mortal_link()
    world.node.layer_gone("link", link, 100)
    world.node.layer_due("link", 500)
    assert LayerDue("link", 500) in world.run()
    begin_link(world, 500)
    world.node.layer_due("link", 600)
    assert not [output for output in world.run() if isinstance(output, LayerDue)]


def test_a_layer_that_has_gone_again_before_it_could_begin_is_away() -> None:
    world, link = with_mortal_link()

    def start(_: bytes) -> Mortal:
        raise LayerGoneError("it fell")

    world.node.layer_gone("link", link, 100)
    world.run()
    world.node.layer_came("link", start, 200)
    assert world.run() == [LayerAway("link", 230, "it fell")]


def test_what_was_sent_to_a_former_life_is_not_handed_to_the_next() -> None:
    world, link = with_mortal_link()
    world.node.layer_gone("link", link, 100)
    begin_link(world, 200)
    outputs = world.run()
    boot_id = layer_boot_id(LIFE, "link", 1)
    assert ToPeer("bob", 230, LayerBegun(layer="link", boot_id=boot_id)) in outputs
    assert (230, LayerUp("link")) in world.heard("network")
    world.log.clear()
    ready = link_messages.Ready(slots=1, device=0)
    world.node.message_arrived("bob", 0, 300, ready)
    world.node.message_arrived("bob", 1, 310, LayerKnown(layer="link", boot_id=boot_id))
    world.node.message_arrived("bob", 2, 320, ready)
    world.run()
    assert world.log == [
        ("link", 320, PeerUp("bob", LIFE)),
        ("link", 330, FromPeer("bob", ready)),
    ]


def test_a_channel_to_a_layer_that_is_away_there_cannot_be_had() -> None:
    world, _ = with_mortal_link()
    world.machines["transport"].answers["CloseSocket"] = [OpenChannel("bob")]
    world.node.message_arrived("bob", 0, 100, LayerGone(layer="transport"))
    world.node.call("app/1", 0, 100, CloseSocket(socket=0))
    assert world.run() == []
    down = [event for _, event in world.heard("transport") if isinstance(event, PeerDown)]
    assert down == [PeerDown("bob"), PeerDown("bob")]
