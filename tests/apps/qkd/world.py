"""Two ends of a key distribution on one in-memory wire, and pairs from a simulated source.

The wire asks `tamper` about every message: what arrives in its place, and where.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from qstack.apps.qkd import events
from qstack.apps.qkd.alice import Alice
from qstack.apps.qkd.authentication import TAG_BYTES, message_code
from qstack.apps.qkd.bob import Bob
from qstack.apps.qkd.conversation import PREFIX_BYTES
from qstack.apps.qkd.machine import Machine
from qstack.apps.qkd.messages import REGISTRY
from qstack.apps.qkd.parameters import Parameters, planned
from qstack.apps.qkd.secret import Header, Secret, pool_bytes
from qstack.wire.codec import encode
from qstack.wire.frame import FrameReader, pack
from qstack.wire.message import Message

NODES = {"alice": "delft", "bob": "leiden"}
OTHER = {"alice": "bob", "bob": "alice"}
SMALL = planned(20_000, 0.5)
"""A run of a few thousand bits, with room for about 4 % of errors."""

Tamper = Callable[[str, str, int, bytes], list[tuple[str, bytes]]]
"""From sender, message name, how many of the name before and bytes: (receiver, bytes)s."""


def secrets_of(*, pool_seed: int = 1, used: tuple[int, int] = (0, 0), attempts: int = 64):
    """The two ends' secrets, without files; what was taken is in `.log`."""
    pool = np.random.default_rng(pool_seed).bytes(pool_bytes(attempts))
    made = {}
    for role, start in zip(("alice", "bob"), used, strict=True):
        header = Header(
            network="test", here=NODES[role], peer=NODES[OTHER[role]], attempts=attempts
        )
        log: list[tuple[int, int]] = []
        made[role] = Secret(header, pool, used=start, journal=lambda *a, log=log: log.append(a))
        made[role].log = log
    return made


@dataclass
class Source:
    """Pairs: error rates in each basis, and the part an eavesdropper measures and sends on."""

    q_z: float = 0.01
    q_x: float = 0.01
    intercepted: float = 0.0

    def outcomes(self, alice, bob, rng):
        """What the two ends get when they measure in these bases."""
        pairs = alice.size
        here = rng.integers(0, 2, pairs, dtype=np.uint8)
        there = np.where(alice == bob, here, rng.integers(0, 2, pairs, dtype=np.uint8))
        eve = rng.random(pairs) < self.intercepted
        eve_basis = rng.integers(0, 2, pairs)
        seen = rng.integers(0, 2, pairs, dtype=np.uint8)
        for bases, outcomes in ((alice, here), (bob, there)):
            luck = rng.integers(0, 2, pairs, dtype=np.uint8)
            outcomes[eve] = np.where(bases == eve_basis, seen, luck)[eve]
        noise = rng.random(pairs) < np.where(bob == 0, self.q_z, self.q_x)
        return here, (there ^ noise).astype(np.uint8)


def message_in(data: bytes) -> Message:
    """The message of sealed bytes, whoever sealed them."""
    return REGISTRY.decode(FrameReader().feed(data[PREFIX_BYTES:-TAG_BYTES])[0])


def resealed(data: bytes, message: Message, sender: str, key: bytes) -> bytes:
    """The bytes with another message in them, sealed by somebody who knows the session key."""
    text = data[:PREFIX_BYTES] + pack(encode(message))
    here, there = NODES[sender], NODES[OTHER[sender]]
    return text + message_code(key, sender=here, receiver=there, data=text)


@dataclass
class World:
    """One run. `run()` drives it until nothing is left to say; then the deadline passes."""

    parameters: Parameters | dict[str, Parameters] = SMALL
    source: Source = field(default_factory=Source)
    seed: int = 0
    secrets: dict[str, Secret] = field(default_factory=secrets_of)
    tamper: Tamper | None = None
    is_seeded: bool = True
    kill_at: tuple[str, str] | None = None  # (role, phase): that end is never heard of again
    ends: dict[str, Machine] = field(init=False)

    def __post_init__(self):
        self.rng = np.random.default_rng([self.seed, 0])
        self.wire: deque[tuple[str, bytes]] = deque()
        self.needs: dict[str, events.Need] = {}
        self.keys: dict[str, events.Key] = {}
        self.aborts: dict[str, events.Abort] = {}
        self.progress: list[tuple[str, events.Progress]] = []
        self.sent: list[tuple[str, Message]] = []
        self.count: Counter[tuple[str, str]] = Counter()
        self.dead: set[str] = set()
        self.ends = {
            role: kind(
                parameters=self._parameters(role),
                secret=self.secrets[role],
                generator=np.random.default_rng([self.seed, number]),
                is_seeded=self.is_seeded,
            )
            for number, (role, kind) in enumerate((("alice", Alice), ("bob", Bob)), 1)
        }

    def _parameters(self, role: str) -> Parameters:
        return self.parameters[role] if isinstance(self.parameters, dict) else self.parameters

    def event(self, role: str, event: events.Event) -> None:
        if role in self.dead:
            return
        effects = self.ends[role].handle(event)
        assert sum(isinstance(e, events.Key | events.Abort) for e in effects) <= 1
        for effect in effects:
            self._apply(role, effect)

    def _apply(self, role: str, effect: events.Effect) -> None:
        if role in self.dead:
            return
        match effect:
            case events.Send():
                self.send(role, effect.data)
            case events.Need():
                self.needs[role] = effect
            case events.Progress():
                self.progress.append((role, effect))
                if self.kill_at == (role, effect.phase):
                    self.dead.add(role)
            case events.Key():
                assert role not in self.keys
                assert role not in self.aborts
                self.keys[role] = effect
            case events.Abort():
                assert role not in self.keys
                assert role not in self.aborts
                self.aborts[role] = effect

    def send(self, role: str, data: bytes) -> None:
        message = message_in(data)
        self.sent.append((role, message))
        name = type(message).__name__
        number = self.count[role, name]
        self.count[role, name] += 1
        if self.tamper is None:
            self.wire.append((OTHER[role], data))
        else:
            self.wire.extend(self.tamper(role, name, number, data))

    def draw(self, role: str) -> np.ndarray:
        """What the node of this end draws: 0 Z, 1 X."""
        need = self.needs[role]
        return (self.rng.random(need.pairs) < need.probabilities["X"]).astype(np.uint8)

    def measure(self) -> None:
        bases = [self.draw(role) for role in ("alice", "bob")]
        outcomes = self.source.outcomes(*bases, self.rng)
        self.needs.clear()
        for role, basis, outcome in zip(("alice", "bob"), bases, outcomes, strict=True):
            self.event(role, events.Measured(basis, outcome))

    def deliver(self) -> None:
        while self.wire or len(self.needs) == 2:
            if self.wire:
                to, data = self.wire.popleft()
                self.event(to, events.Received(data))
            else:
                self.measure()

    def run(self) -> "World":
        for role in ("bob", "alice"):
            self.event(role, events.Begin())
        self.deliver()
        for role in ("alice", "bob"):
            if role not in self.keys and role not in self.aborts:
                self.event(role, events.Deadline())
        self.deliver()
        return self

    def names(self) -> list[tuple[str, str]]:
        """What was said, by whom."""
        return [(role, type(message).__name__) for role, message in self.sent]

    def reasons(self) -> dict[str, str]:
        return {role: abort.reason.name for role, abort in self.aborts.items()}
