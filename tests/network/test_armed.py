"""Swaps armed in the device, against the truth: whatever the device takes, and whenever it says so.

Beside the networks of `tests/runtime/test_swaps_in_device.py`: here the device is scripted, and
orders happen that those have seldom or never.
"""

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest

from qstack.ids import boot_id, link_id
from qstack.link import service as link
from qstack.machine import Event, Told
from qstack.network.machine import NetworkLayer
from qstack.physical import service as physical
from qstack.physical.program import Arm, Disarm, ProgramResult
from qstack.wire.message import Message
from tests.network.world import SECOND, Options, World, chain


@dataclass
class Program:
    """One the device has, from `begins_ns` on."""

    call: int
    held: bytes
    link: str
    token: bytes
    begins_ns: int


class ArmedWorld(World):
    """A world whose devices take programs: `slow_ns` is how late they do what they are asked."""

    slow_ns = 0
    error = ""  # of every program
    failure = 0.0

    def start(self, name: str) -> None:
        if not hasattr(self, "programs"):
            self.programs: dict[str, dict[int, Program]] = {}
            self.taken = self.asked = 0
        super().start(name)
        count = self.restarts[name]
        rng = np.random.default_rng([self.seed, len(self.restarts), count, *name.encode()])
        boot, cutoff_ns = boot_id(self.seed, name, count), self.options.cutoff_ns
        self.nodes[name] = NetworkLayer(name, boot, rng, cutoff_ns, swaps_in_device=True)
        self.programs[name] = {}
        self.give_capability(name)

    def event(self, name: str, event: Event) -> None:
        if isinstance(event, Told) and isinstance(event.message, link.LinkPair):
            self.herald(name, event.message)
        super().event(name, event)

    def herald(self, name: str, pair: link.LinkPair) -> None:
        """The device hears of a qubit when the daemon does; it takes it if it waits for it."""
        for program in self.programs.get(name, {}).values():
            is_wanted = (program.link, program.token) == (link_id(name, pair.peer), pair.request)
            if is_wanted and program.begins_ns <= self.now:
                del self.programs[name][program.call]
                self.take(name, program, pair.qubit)
                return

    def take(self, name: str, program: Program, coming: bytes) -> None:
        self.taken += 1
        if self.rng.random() < self.failure:
            return self.reply(name, self.result(program.call, [program.held, coming], [], "GONE"))
        x, z = self.choose()
        first, second = self.qubits[program.held], self.qubits[coming]
        first.owner = second.owner = "gone"
        bits = (first.bits[0] ^ second.bits[0] ^ x, first.bits[1] ^ second.bits[1] ^ z)
        for one, other in ((first, second), (second, first)):
            if one.partner is not None and one.partner in self.qubits:
                far = self.qubits[one.partner]
                far.partner, far.bits = other.partner, bits
        return self.reply(name, self.result(program.call, [program.held, coming], [x, z], None))

    def result(self, call: int, qubits: list[bytes], bits: list[int], error: Any) -> ProgramResult:
        done = int(error is None)
        return ProgramResult(
            call=call, qubits=qubits, bits=bits, steps_done=done, error=error, detail="",
            began_at_ns=self.now,
        )  # fmt: skip

    def reply(self, name: str, message: Message) -> None:
        boot = self.restarts[name]

        def said() -> None:
            if self.restarts[name] == boot:
                self.event(name, Told("physical", message))

        self.at(self.now + 1000 + self.rng.randrange(self.options.swap_spread_ns + 1), said)

    def on_physical(self, name: str, message: Message) -> None:
        later_ns = self.now + self.rng.randrange(self.slow_ns + 1)
        match message:
            case Arm():
                self.arm(name, message, later_ns)
            case Disarm():
                self.at(later_ns, partial(self.disarm, name, message.program))
            case physical.Free() if self.qubits[message.qubit].owner == "gone":
                pass  # freeing what is gone is not an error
            case physical.Free():
                for program in list(self.programs[name].values()):
                    if program.held == message.qubit:
                        self.disarm(name, program.call)
                super().on_physical(name, message)
            case physical.BellMeasure(first=first, second=second) if "gone" in (
                self.qubits[first].owner,
                self.qubits[second].owner,
            ):
                failed = physical.CallFailed(call=message.call, error="GONE", detail="")
                self.reply(name, failed)
            case _:
                super().on_physical(name, message)

    def arm(self, name: str, asked: Arm, at_ns: int) -> None:
        self.asked += 1
        (held,) = [place.qubit for place in asked.places if place.qubit is not None]
        (coming,) = [place for place in asked.places if place.qubit is None]
        assert self.qubits[held].owner == "network"
        assert asked.deadline_ns > self.now
        if self.error:
            failed = physical.CallFailed(call=asked.call, error=self.error, detail="")
            return self.reply(name, failed)
        assert coming.link is not None
        assert coming.token is not None
        held_by = [each.held for each in self.programs[name].values()]
        assert held not in held_by, "a qubit is armed twice"
        program = Program(asked.call, held, coming.link, coming.token, at_ns)
        self.programs[name][asked.call] = program
        return None

    def disarm(self, name: str, call: int) -> None:
        if self.programs[name].pop(call, None) is not None:
            self.reply(name, physical.CallFailed(call=call, error="CANCELLED", detail=""))


@pytest.mark.parametrize("block", range(4))
def test_no_pair_is_wrong_or_leaked_whatever_the_device_takes(block: int) -> None:
    """Slow devices, failures, void pairs, cutoffs, cancels: truth and ledger hold."""
    taken = 0
    for seed in range(block * 15, block * 15 + 15):
        chance = Random(10**7 + seed)
        count = chance.randrange(3, 6)
        options = Options(
            void=chance.choice([0.0, 0.15]),
            cutoff_ns=chance.choice([None, 1_500_000, 20_000_000]),
            spread_ns=chance.choice([0, 20_000, 400_000]),
            swap_spread_ns=chance.choice([0, 50_000, 2_000_000]),
        )
        world = ArmedWorld(chain(count), seed, options)
        world.slow_ns = chance.choice([0, 50_000, 3_000_000])
        world.failure = chance.choice([0.0, 0.2])
        tail = f"n{count - 1}"
        requests = []
        for _ in range(chance.randrange(1, 4)):
            request = world.create("n0", tail, chance.randrange(1, 6))
            requests.append(request)
            world.run(world.now + chance.randrange(3_000_000))
            if chance.random() < 0.3:
                world.at(
                    world.now + chance.randrange(10_000_000),
                    partial(world.cancel_request, chance.choice(["n0", tail]), request),
                )
        world.run(world.now + 60 * SECOND)
        for request in requests:
            world.check("n0", tail, request)
            assert world.ending("n0", request), f"seed {seed}: a request does not end"
        world.check_ledger()
        taken += world.taken
    assert taken > 60


@pytest.mark.parametrize("error", ["UNSUPPORTED", "BAD_REQUEST", "TIMEOUT", "NO_RESOURCES"])
def test_where_the_device_takes_no_program_swaps_are_done_as_ever(error: str) -> None:
    world = ArmedWorld(chain(3), 5)
    world.error = error
    request = world.create("n0", "n2", 5)
    world.run()
    assert world.check("n0", "n2", request) == 5
    world.check_ledger()


def test_a_device_that_says_unsupported_is_not_asked_again_for_that_link() -> None:
    world = ArmedWorld(chain(3), 5)
    world.error = "UNSUPPORTED"
    world.create("n0", "n2", 12)
    world.run()
    assert 1 <= world.asked <= 2  # one of each link
