"""One run of a scenario in virtual time: two nodes, a fabric, and users who ask.

Link and physical layers, the emulated device and the fabric are those of the daemons. `loss` is of
all that one link layer says to the other; what station and devices say is not lost (in the study
it is: there the messages to the station are part of the same protocol).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from benchmarks.link_scenarios.patterns import ENDS, SCHEDULERS, SETUPS, Scenario, Use
from benchmarks.link_scenarios.users import AXES, Asked, Axis, User, flipped
from qstack.runtime.lockstep import Sent
from qstack.runtime.network_file import Network
from qstack.runtime.virtual import VirtualNetwork
from qstack.wire.frame import Layer
from qstack.wire.message import Message


class LossyNetwork(VirtualNetwork):
    """A virtual network that loses link messages with a probability."""

    def __init__(self, network: Network, seed: int, loss: float) -> None:
        self.sent = self.lost = 0
        self._loss = loss
        self._rng = Random(f"{seed} loss")
        super().__init__(network, seed)

    def _to_peer(
        self, name: str, peer: str, at_ns: int, message: Message, sent: dict[str, Sent]
    ) -> None:
        if message.LAYER == Layer.LINK:
            self.sent += 1
            if self._rng.random() < self._loss:
                self.lost += 1
                return
        super()._to_peer(name, peer, at_ns, message, sent)


@dataclass
class UseRun:
    """What became of the requests of one use in one run."""

    requests: int = 0
    done: int = 0
    refused: int = 0
    failed: int = 0
    pairs: int = 0
    latencies_s: list[float] = field(default_factory=list)
    scaled_s: list[float] = field(default_factory=list)
    queue: float = 0.0  # requests open, the mean over time
    read: dict[Axis, int] = field(default_factory=lambda: dict.fromkeys(AXES, 0))
    wrong: dict[Axis, int] = field(default_factory=lambda: dict.fromkeys(AXES, 0))

    @property
    def fidelity(self) -> float:
        """As the readings of both ends tell it: 1 - (e_X + e_Y + e_Z) / 2; nan without them."""
        if not all(self.read.values()):
            return math.nan
        return 1.0 - sum(self.wrong[axis] / self.read[axis] for axis in AXES) / 2.0

    @property
    def open(self) -> int:
        """Requests still open at the end of the run."""
        return self.requests - self.done - self.refused - self.failed


@dataclass
class Run:
    """One run: by use, and what was said and lost between the link layers."""

    scenario: Scenario
    seed: int
    duration_s: float
    uses: dict[Use, UseRun]
    messages: int
    lost: int
    void: int


def simulate(scenario: Scenario, seed: int, duration_s: float) -> Run:
    """Run a scenario for so much network time; it begins with an empty queue."""
    duration_ns = round(duration_s * 1e9)
    network = SETUPS[scenario.setup].network(SCHEDULERS[scenario.scheduler].weights)
    virtual = LossyNetwork(network, seed, scenario.loss)
    users = {}
    for name, node in virtual.nodes.items():
        node.trace = None
        users[name] = User(scenario, name, seed, duration_ns)
        node.machines["network"] = users[name]
    virtual.run_until(duration_ns)
    uses: dict[Use, UseRun] = {use: UseRun() for use in scenario.uses}
    for user in users.values():
        for asked in user.asked.values():
            _add(uses[asked.use], asked, duration_ns)
    for use, axis, is_wrong in _readings(users):
        uses[use].read[axis] += 1
        uses[use].wrong[axis] += is_wrong
    void = sum(user.void for user in users.values())
    return Run(scenario, seed, duration_s, uses, virtual.sent, virtual.lost, void)


def _add(use: UseRun, asked: Asked, duration_ns: int) -> None:
    until_ns = duration_ns if asked.ended_ns is None else asked.ended_ns
    use.requests += 1
    use.pairs += asked.came
    use.queue += (until_ns - asked.created_ns) / duration_ns
    if asked.end == "done":
        latency_s = (until_ns - asked.created_ns) / 1e9
        use.done += 1
        use.latencies_s.append(latency_s)
        use.scaled_s.append(latency_s / asked.pairs)
    elif asked.end == "NO_RESOURCES":
        use.refused += 1
    elif asked.end is not None:
        use.failed += 1


def _readings(users: dict[str, User]) -> Iterator[tuple[Use, Axis, int]]:
    """Each pair that both ends have read: use, basis, and whether it was not as announced."""
    here, there = (users[end].readings for end in ENDS)
    asked_for = {id_: asked.use for user in users.values() for id_, asked in user.asked.items()}
    for pair, half in here.kept.items():
        if pair in there.kept:
            yield asked_for[half.request], half.axis, half.bit ^ there.kept[pair].bit
    for user in users.values():
        for request, asked in user.asked.items():
            mine, others = here.measured.get(request, []), there.measured.get(request, [])
            axis = user.axis_of(request)
            for code, other in zip(mine, others, strict=False):
                flip = flipped(axis, (code >> 1) & 1, code & 1)
                yield asked.use, axis, (code >> 2) ^ (other >> 2) ^ flip
