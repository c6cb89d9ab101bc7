"""A bench for drivers: devices of all nodes of the check, in virtual time, and all they answer.

What the emulated device sends goes to a fabric; a driver that answers itself is asked when it said.
Far ends always attempt with `here`: a driver that imagines them need not have more than one end.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from msgspec.structs import replace

from qstack.errors import ErrorCode
from qstack.ids import boot_id, qubit_id
from qstack.machine import Send
from qstack.physical.check.world import HERE
from qstack.physical.device import (
    Answer,
    Device,
    DeviceBasis,
    DeviceHealth,
    Generate,
    Initialise,
    Initialised,
    Operation,
    OperationRefused,
    Result,
    StopGenerate,
)
from qstack.physical.drivers.setup import MakeDevice, Setup
from qstack.physical.durations import duration_ns, result_ns
from qstack.physical.fabric import Fabric
from qstack.physical.hardware import LinkHardware, World
from qstack.physical.params import READOUT_NS
from qstack.physical.service import AttemptKind, Rotation
from qstack.wire.message import Message

RESTLESS_CALLS: Final = 10_000  # a driver asked so often at one time does not come to rest
SECOND_NS: Final = 10**9
PATIENCE_NS: Final = 10**18  # thirty years: for what comes when it comes

M = TypeVar("M", bound=Message)


class CheckFailedError(Exception):
    """The driver does not do what it must; the text says what."""


class NotOfferedError(Exception):
    """The driver says that it cannot do this; that is allowed."""


class Heard(NamedTuple):
    """What a device answered, and when."""

    at_ns: int
    node: str
    message: Message


class Bench:
    """Devices of all nodes of `world`, made anew and begun at time 0."""

    def __init__(self, make: MakeDevice, world: World, seed: int, setup: Setup | None) -> None:
        """`setup` has the options and files of the driver, if it needs any."""
        self.world = world
        self.now = 0
        self.heard: list[Heard] = []
        self.asked: dict[str, dict[int, Operation]] = {node: {} for node in world.nodes}
        self.batches = 0
        self._seed = seed
        self._fabric = Fabric(world, seed)
        self._due: list[Heard] = []  # of the fabric, on the way
        self._free_ns = 0
        self._qubits = 0
        options = {} if setup is None else setup.options
        files = {} if setup is None else setup.files
        self.devices: dict[str, Device] = {}
        for place, node in enumerate(world.nodes):
            self._fabric.node_up(node, boot_id(seed, node, 0))
            rng = np.random.default_rng([seed, place])
            device = make(Setup(node=node, world=world, rng=rng, options=options, files=files))
            device.begin(0)
            self.devices[node] = device

    # --- asking -----------------------------------------------------------------------------------

    def new_qubit(self) -> bytes:
        """A name no qubit has."""
        self._qubits += 1
        return qubit_id(boot_id(self._seed, HERE, 0), self._qubits)

    def next_sequence(self, node: str = HERE) -> int:
        """The number of the next operation."""
        return len(self.asked[node]) + 1

    def start_ns(self) -> int:
        """When the device, which is serial, comes to the next operation."""
        return max(self.now, self._free_ns)

    def submit(self, operation: Operation, node: str = HERE) -> int:
        """Ask for an operation; its number."""
        self.asked[node][operation.sequence] = operation
        profile = self.world.nodes[node].profile
        busy_ns = duration_ns(profile, operation)
        if node == HERE and busy_ns:
            self._free_ns = operation.at_ns + busy_ns
        self._hear(node, self.devices[node].submit(operation, self.now))
        return operation.sequence

    def generate(
        self,
        link: str,
        *,
        kind: AttemptKind,
        pairs: int = 1,
        basis: DeviceBasis | None = None,
        qubit: bytes | None = None,
        far: DeviceBasis = "Z",
        rotation: Rotation | None = None,
    ) -> Generate:
        """Attempts on a link, at both of its ends; the operation at `here`.

        `far` is the basis of the far end, if it reads; `rotation` is at `here` alone.
        """
        self.batches += 1
        hardware = self.link(link)
        cycle_ns = hardware.cycle_ns(kind, *self.world.end_profiles(link))
        asked = Generate(
            at_ns=self.now,
            sequence=self.next_sequence(),
            batch=self.batches,
            link=link,
            token=self.batches.to_bytes(16, "big"),
            kind=kind,
            first_cycle=-(-self.now // cycle_ns),
            bright_state=None,
            pairs=pairs,
            basis=basis,
            qubit=qubit,
            rotation=rotation,
        )
        self.submit(asked)
        other = hardware.other_end(HERE)
        is_far_kept = (qubit is None) == (kind == "prepare")
        mirrored = replace(
            asked,
            sequence=self.next_sequence(other),
            qubit=self.new_qubit() if is_far_kept else None,
            basis=None if is_far_kept else far,
            rotation=None,
        )
        self.submit(mirrored, other)
        return asked

    def stop(self, batch: Generate) -> int:
        """End a batch at `here`, and then at its far end."""
        far = self.link(batch.link).other_end(HERE)
        for node in (HERE, far):
            stop = StopGenerate(
                at_ns=self.now,
                sequence=self.next_sequence(node),
                batch=batch.batch,
                reason="stopped",
            )
            self.submit(stop, node)
        return self.now

    def initialised(self) -> bytes:
        """A fresh qubit. Raises `NotOfferedError` if the device makes none."""
        qubit = self.new_qubit()
        operation = Initialise(at_ns=self.start_ns(), sequence=self.next_sequence(), qubit=qubit)
        self.answer_to(operation, Initialised)
        return qubit

    def answer_to(self, operation: Operation, kind: type[M]) -> M:
        """Ask, and wait for the one answer by the time it is due.

        Raises `NotOfferedError` for a refusal as UNSUPPORTED, else `CheckFailedError`.
        """
        answer = self.any_answer_to(operation)
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, OperationRefused):
            if answer.error == ErrorCode.UNSUPPORTED.name:
                raise NotOfferedError(answer.detail)
            raise CheckFailedError(
                f"{type(operation).__name__} was refused: {answer.error} {answer.detail}"
            )
        raise CheckFailedError(
            f"{type(operation).__name__} was answered by {_name(answer)}; expected {kind.__name__}"
        )

    def any_answer_to(self, operation: Operation) -> Message | None:
        """Ask, and wait until an answer is overdue; what came, or None."""
        before = len(self.heard)
        number = self.submit(operation)
        due_ns = operation.at_ns + result_ns(self.world.nodes[HERE].profile, operation)
        self.run(due_ns + 1)
        for heard in self.heard[before:]:
            message = heard.message
            is_answer = isinstance(message, Result) and message.operation == number
            if heard.node == HERE and is_answer:
                if heard.at_ns < operation.at_ns:
                    raise CheckFailedError(
                        f"{type(operation).__name__} at {operation.at_ns} ns was answered before,"
                        f" at {heard.at_ns} ns"
                    )
                return message
        return None

    # --- hearing ----------------------------------------------------------------------------------

    def said(self, kind: type[M], since: int = 0, node: str = HERE) -> list[tuple[int, M]]:
        """When and what a device said of one kind, from the `since`-th answer on."""
        return [
            (heard.at_ns, heard.message)
            for heard in self.heard[since:]
            if heard.node == node and isinstance(heard.message, kind)
        ]

    def run(self, until_ns: int) -> None:
        """Everything before `until_ns`; then it is that time."""
        while (next_ns := self._next_ns()) is not None and next_ns < until_ns:
            self._step(next_ns)
        self.now = max(self.now, until_ns)

    def run_until_quiet(self) -> None:
        """Until nothing is ahead."""
        while (next_ns := self._next_ns()) is not None and next_ns < PATIENCE_NS:
            self._step(next_ns)

    def words(self, since: int) -> Iterator[Message]:
        """What `here` says from the `since`-th answer on; ends when nothing more will come."""
        place = since
        while True:
            while place < len(self.heard):
                heard = self.heard[place]
                place += 1
                if heard.node == HERE:
                    yield heard.message
            next_ns = self._next_ns()
            if next_ns is None or next_ns > PATIENCE_NS:
                return
            self._step(next_ns)

    def restart(self) -> None:
        """The device at `here` goes and comes back: it is to forget everything."""
        self._fabric.run(self.now + 1)
        self._fabric.node_down(HERE, self.now)
        self._due = [heard for heard in self._due if heard.node != HERE]
        self._fabric.node_up(HERE, boot_id(self._seed, HERE, 1))
        self.devices[HERE].begin(self.now)
        self._free_ns = 0

    def link(self, name: str) -> LinkHardware:
        """A link of the world."""
        return self.world.links[name]

    def back_ns(self, link: str) -> int:
        """The latest from an emission, or a stop, until the node hears of it."""
        hardware = self.link(link)
        arms_ns = max(map(hardware.arm_ns, hardware.ends)) + hardware.arm_ns(HERE)
        profile = self.world.nodes[HERE].profile
        return max(arms_ns, profile.readout_ns) + profile.move_ns + READOUT_NS

    # --- inside -----------------------------------------------------------------------------------

    def _next_ns(self) -> int | None:
        times = [device.next_event_ns() for device in self.devices.values()]
        times += [self._fabric.next_event_ns(), self._due[0].at_ns if self._due else None]
        return min((each for each in times if each is not None), default=None)

    def _step(self, at_ns: int) -> None:
        self.now = max(self.now, at_ns)
        for delivery in self._fabric.run(self.now + 1):
            self._due.append(Heard(delivery.due_ns, delivery.node, delivery.message))
        self._due.sort(key=lambda heard: heard.at_ns)
        while self._due and self._due[0].at_ns <= self.now:
            heard = self._due.pop(0)
            device = self.devices[heard.node]
            self._hear(heard.node, device.received(heard.message, self.now))
        for node, device in self.devices.items():
            self._ask(node, device)

    def _ask(self, node: str, device: Device) -> None:
        for _ in range(RESTLESS_CALLS):
            wanted_ns = device.next_event_ns()
            if wanted_ns is None or wanted_ns > self.now:
                return
            self._hear(node, device.answers(self.now))
        raise CheckFailedError(
            f"next_event_ns stays at {device.next_event_ns()} ns, which is not after now"
            f" ({self.now} ns), however often answers is called: the node would never go on"
        )

    def _hear(self, node: str, answers: Sequence[Answer]) -> None:
        for answer in answers:
            match answer:
                case DeviceHealth(state="down", detail=detail):
                    raise CheckFailedError(f"the device says that it is down: {detail}")
                case Message():
                    self.heard.append(Heard(self.now, node, answer))
                case Send(message=Operation() as operation):
                    self._fabric.apply(node, operation)
                case _:
                    raise CheckFailedError(
                        f"the device wants {type(answer).__name__} done; expected an answer, or"
                        " Send of operations to its peer"
                    )


def _name(message: Message | None) -> str:
    return "nothing" if message is None else type(message).__name__
