"""The detectors of stations that have a name: which photons meet in them, and when.

A node's Generate makes it emit; what comes of that is decided where the photons meet, and only for
what the station watches. A watch draws its success once (attempts are independent, so their number
is geometric), over the cycles in which both batches emit and the photons come while it is watching.
The pair's qubits are as old as their emission, and begin to be there when the detectors click.

Endings
1. Success: both batches end, the watch ends with Clicked, RESULT_MIN_NS after the photons' arrival.
2. A batch that is stopped at t emits before t only. A success emitted before t is in flight, and
   its watch still ends with Clicked.
3. A watch that is stopped ends with Clicked if a success before its last cycle is in flight, else
   with WatchEnded, once the photons of that cycle have come. The batches go on.
4. What is given up, or whose node has gone, ends at once; of a success in flight the far end alone
   gets a qubit, which is then nobody's partner.
So every watch has exactly one last answer, and a node hears nothing from here but of its station.
"""

from collections.abc import Callable
from typing import Final

from qstack.errors import ErrorCode
from qstack.physical.device import Generate
from qstack.physical.fabric.batches import AttemptCounter, Batch
from qstack.physical.fabric.chance import Chance
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.link_model import PATTERN_BITS, LinkModel
from qstack.physical.fabric.readings import Deliver
from qstack.physical.fabric.register import Move, RefusedError, Register
from qstack.physical.fabric.station import Station
from qstack.physical.generation import has_storage
from qstack.physical.hardware import World
from qstack.physical.params import NEVER_NS, RESULT_MIN_NS
from qstack.physical.station_device import (
    Clicked,
    KeepHeralded,
    Kept,
    StopWatch,
    WatchEnded,
    WatchLink,
)

END_AHEAD_NS: Final = 10_000_000_000
"""The end of a watch is told no later than this after it was asked for."""


class Watch:
    """One watch of a station; `event_ns` is when its detectors will click."""

    def __init__(self, station: str, asked: WatchLink, model: LinkModel, number: int) -> None:
        self.station = station
        self.asked = asked
        self.model = model
        self.number = number
        self.batches: tuple[Batch, Batch] | None = None  # in the order of the link's ends
        self.event_ns: int | None = None  # None: nothing will come of it, or it is over
        self.success_cycle = 0
        self.pattern = 0


class Watches:
    """All links through named stations. `deliver` sends, `schedule` asks to be called back."""

    def __init__(
        self,
        world: World,
        station: Station,
        register: Register,
        counter: AttemptCounter,
        chance: Chance,
        *,
        deliver: Deliver,
        schedule: Callable[[Watch], None],
    ) -> None:
        self._world = world
        self._station = station
        self._register = register
        self._counter = counter
        self._chance = chance
        self._deliver = deliver
        self._schedule = schedule
        self._emitting: dict[tuple[str, int], Batch] = {}  # by node and number
        self._watches: dict[tuple[str, int], Watch] = {}  # by station and sequence
        self._made = dict.fromkeys(world.links, 0)

    def serves(self, link: str) -> bool:
        """Whether a link goes through a station that is a participant of its own."""
        hardware = self._world.links.get(link)
        return hardware is not None and hardware.station is not None

    # --- what nodes ask --------------------------------------------------------------------------

    def generate(self, node: str, operation: Generate, at_ns: int) -> None:
        """A node begins to emit. Raises `RefusedError`."""
        batch = self._station.admit(node, operation, at_ns)
        self._emitting[node, batch.number] = batch
        for watch in list(self._watches.values()):
            if watch.batches is None and watch.asked.link == operation.link:
                self._begin(watch, at_ns)

    def stop(self, node: str, number: int, reason: str, at_ns: int) -> bool:
        """A node ends a batch; whether it is one of these that emits."""
        if reason == "given-up":
            self._give_up(node, number)
        batch = self._emitting.pop((node, number), None)
        if batch is None:
            return False
        self._counter.end(batch, at_ns)
        for watch in self._watches.values():
            if batch in (watch.batches or ()) and self._emission_ns(watch) >= at_ns:
                watch.event_ns = None
        return True

    def keep(self, node: str, operation: KeepHeralded, at_ns: int) -> None:
        """A heralded qubit is moved to storage. Raises `RefusedError`."""
        profile = self._world.nodes[node].profile
        move = Move(at_ns + profile.move_ns, profile.move_depolarising)
        self._register.store(QubitKey(node, operation.qubit), move)
        due_ns = at_ns + max(profile.move_ns, RESULT_MIN_NS)
        self._deliver(node, due_ns, Kept(operation=operation.sequence))

    def node_gone(self, node: str, at_ns: int) -> None:
        """All that a node emits ends; its photons in flight are nobody's."""
        for name, number in list(self._emitting):
            if name == node:
                self.stop(node, number, "given-up", at_ns)
        self._give_up(node, None)

    # --- what stations ask -----------------------------------------------------------------------

    def watch(self, station: str, asked: WatchLink, at_ns: int) -> None:
        """A station watches. Raises `RefusedError`."""
        hardware = self._world.links.get(asked.link)
        if hardware is None or hardware.station != station:
            detail = f"no link {asked.link} goes through {station}"
            raise RefusedError(ErrorCode.BAD_REQUEST, detail)
        if (station, asked.sequence) in self._watches:
            raise RefusedError(ErrorCode.BAD_REQUEST, f"watch {asked.sequence} is open")
        number = self._made[asked.link]
        self._made[asked.link] += 1
        watch = Watch(station, asked, self._station.models[asked.link], number)
        self._watches[station, asked.sequence] = watch
        self._begin(watch, at_ns)

    def stop_watch(self, station: str, asked: StopWatch, at_ns: int) -> None:
        """The photons of a watch end; nothing happens if it has ended."""
        watch = self._watches.get((station, asked.watch))
        if watch is None or (
            watch.event_ns is not None and watch.success_cycle < asked.until_cycle
        ):
            return
        watch.event_ns = None
        del self._watches[station, asked.watch]
        last_ns = self._arrival_ns(watch.model, asked.until_cycle - 1)
        due_ns = min(max(at_ns, last_ns), at_ns + END_AHEAD_NS) + RESULT_MIN_NS
        self._deliver(station, due_ns, WatchEnded(operation=asked.watch))

    def station_gone(self, station: str) -> None:
        """Nobody looks at its detectors any more; what nodes emit goes on."""
        for key in [key for key in self._watches if key[0] == station]:
            self._watches.pop(key).event_ns = None

    # --- what becomes of them --------------------------------------------------------------------

    def clicks(self, watch: Watch) -> None:
        """The photons of a success arrive."""
        assert watch.batches is not None
        assert watch.event_ns is not None
        at_ns, model, emitted_ns = watch.event_ns, watch.model, self._emission_ns(watch)
        watch.event_ns = None
        del self._watches[watch.station, watch.asked.sequence]
        for batch in watch.batches:
            if self._emitting.pop((batch.node, batch.number), None) is not None:
                self._counter.end(batch, emitted_ns + 1)
        first, second = (
            QubitKey(batch.node, batch.operation.qubit or b"") for batch in watch.batches
        )
        state = model.success(watch.batches[0].operation.bright_state).states[watch.pattern]
        moves = [self._later(batch.node) for batch in watch.batches]
        self._register.add_pair(state, (first, second), moves, emitted_ns)
        for key, batch in zip((first, second), watch.batches, strict=True):
            if batch.is_given_up:
                self._register.release(key)
        x, z = PATTERN_BITS[watch.pattern]
        clicked = Clicked(
            operation=watch.asked.sequence, cycle=watch.success_cycle, x_bit=x, z_bit=z
        )
        self._deliver(watch.station, at_ns + RESULT_MIN_NS, clicked)

    # --- inside ----------------------------------------------------------------------------------

    def _give_up(self, node: str, number: int | None) -> None:
        """What is in flight of a batch of a node, or of all of them, is not wanted."""
        for watch in self._watches.values():
            for batch in watch.batches or ():
                if batch.node == node and number in (None, batch.number):
                    batch.is_given_up = True

    def _later(self, node: str) -> Move | None:
        """A qubit of a node with storage stays where it is until the node hears of it."""
        hardware = self._world.nodes[node]
        profile = hardware.profile
        if not has_storage(hardware.memory, profile.comm_qubits):
            return None
        return Move(NEVER_NS, profile.move_depolarising)

    def _begin(self, watch: Watch, at_ns: int) -> None:
        """Draw what comes of a watch, once both ends emit."""
        model, asked = watch.model, watch.asked
        first, second = (
            self._emitting.get((end, number))
            for end, number in zip(model.ends, asked.batches, strict=True)
        )
        if first is None or second is None:
            return
        watch.batches = (first, second)
        probability = 0.0
        if first.key[2:] == second.key[2:]:  # else the photons do not interfere
            probability = model.success(first.operation.bright_state).probability
        if probability <= 0.0:
            return
        generator = self._chance.generator("watch", asked.link, watch.number)
        since = self._first_arriving(model, at_ns)
        begin = max(first.first_cycle, second.first_cycle, asked.first_cycle, since)
        watch.success_cycle = begin - 1 + int(generator.geometric(probability))
        watch.pattern = int(generator.random() < 0.5)
        event_ns = self._arrival_ns(model, watch.success_cycle)
        is_seen = asked.until_cycle is None or watch.success_cycle < asked.until_cycle
        if is_seen and event_ns < NEVER_NS:
            watch.event_ns = event_ns
            self._schedule(watch)

    def _emission_ns(self, watch: Watch) -> int:
        model = watch.model
        return watch.success_cycle * model.cycle_ns("keep") + model.emission_offset_ns

    def _arrival_ns(self, model: LinkModel, cycle: int) -> int:
        emitted_ns = cycle * model.cycle_ns("keep") + model.emission_offset_ns
        return emitted_ns + model.link.arrival_ns

    def _first_arriving(self, model: LinkModel, at_ns: int) -> int:
        """The first cycle whose photons come at `at_ns` or later."""
        lead_ns = model.emission_offset_ns + model.link.arrival_ns
        return max(0, -((lead_ns - at_ns) // model.cycle_ns("keep")))
