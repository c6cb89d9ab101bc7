"""What one end knows of one link: the peer, the device, the queue, and what it announced."""

from collections import OrderedDict
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from qstack.ids import LinkPairId, link_id, link_pair_id, lives_of_link
from qstack.link.estimation import lowered
from qstack.link.params import PAIR_HISTORY_MAX, Weight
from qstack.link.queue import Place, Request
from qstack.link.service import LinkOption
from qstack.physical.service import AttemptKind, GenerationOption, LinkCapability


class Announced(Struct, gc=False):
    """A pair told to the layer above."""

    pair: bytes
    purpose: bytes


@dataclass
class Peer:
    """One link, seen from `node`."""

    node: str
    name: str
    boot_id: bytes
    weights: tuple[Weight, ...] | None = None  # of priorities; None: all are strict
    peer_boot_id: bytes | None = None
    capability: LinkCapability | None = None
    peer_slots: int | None = None
    devices: int = 0  # how many this end has had; a device that comes back is another one
    peer_device: int = 0
    requests: dict[bytes, Request] = field(default_factory=dict)
    purposes: dict[bytes, None] = field(default_factory=dict)
    # By herald sequence. To find the first of a plain dict is to pass all that were forgotten.
    announced: OrderedDict[int, Announced] = field(default_factory=OrderedDict)
    forgotten_until: int = 0  # of announced pairs: all forgotten ones have lower sequences
    void: dict[int, None] = field(default_factory=dict)  # pairs let go here before they were told
    next_queue_number: int = 0
    virtual_ns: int = 0  # how far requests have been served, each divided by its weight
    waits_for_memory: bool = False
    short_since_ns: int | None = None  # memory has been full since then
    own_room: int | None = None  # batches that fit while it is, once that has lasted
    told_room: int | None = None  # what the far end knows of it
    peer_room: int | None = None  # what it has said of its own
    is_room_due: bool = False  # the timer to look at it again is armed
    is_closed: bool = False  # in MAINTENANCE: no attempts are made
    calibration: int = 0  # the last that is known
    sated_until_ns: float = 0  # until then no request wants another batch because a pair has come
    is_choice_due: bool = False  # the timer to look at the queue again is armed
    test_share: float = 0.0  # of the pairs, sacrificed to test rounds
    lowered: dict[float | None, float] = field(default_factory=dict)
    """Fidelities offered under an alarm, by the bright state of the option."""
    lives: tuple[bytes | None, bytes] = (None, b"")
    """A life of the peer, and what the ids of pairs made in it begin with."""

    @property
    def link(self) -> str:
        """The link's name."""
        return link_id(self.node, self.name)

    @property
    def is_up(self) -> bool:
        """Whether peer and both devices are there, and there is a way to run the link."""
        return (
            self.peer_boot_id is not None
            and self.capability is not None
            and bool(self.capability.options)
            and self.peer_slots is not None
        )

    @property
    def may_attempt(self) -> bool:
        """Whether batches may be begun."""
        return self.is_up and not self.is_closed and not self.waits_for_memory

    @property
    def pairs_by_slots(self) -> bool:
        """Whether the ends find their pairs by comparing detected slots."""
        return self.capability is not None and self.capability.pairing == "slots"

    @property
    def is_master(self) -> bool:
        """The smaller name gives out queue numbers."""
        return self.node < self.name

    @property
    def slots(self) -> int:
        """Batches that make sense at once: what both ends have room for."""
        assert self.capability is not None
        assert self.peer_slots is not None
        return min(self.capability.slots, self.peer_slots)

    @property
    def room(self) -> int:
        """The same, while the memory of an end is full."""
        slots = self.slots
        own = slots if self.own_room is None else self.own_room
        far = slots if self.peer_room is None else self.peer_room
        return min(slots, own, far)

    @property
    def batches_open(self) -> int:
        """Batches running at this end."""
        return sum([len(request.batches) for request in self.requests.values()])

    def take_place(self) -> Place:
        """The next place in the queue; only the master calls this."""
        assert self.is_master
        self.next_queue_number += 1
        return Place(self.next_queue_number - 1, self.virtual_ns)

    def serve(self, request: Request, first_herald: int, pairs: int) -> None:
        """Count pairs that have come for a request."""
        if request.cost_ns is not None:  # else it has no weight, and takes nothing from those
            self.virtual_ns = max(self.virtual_ns, request.virtual_finish(0))
        request.serve(first_herald, pairs)

    def cost_ns(self, kind: AttemptKind, option: GenerationOption, priority: int) -> int | None:
        """The mean time of a pair, divided by the weight of its request; None if it has none."""
        weight = "strict" if self.weights is None else self.weights[priority]
        if weight == "strict":
            return None
        cycle_ns = option.measure_cycle_ns if kind == "measure" else option.cycle_ns
        return max(1, round(cycle_ns / max(option.probability, 1e-9) / weight))

    def pair_id(self, herald_sequence: int) -> LinkPairId:
        """The pair's name, equal at both ends."""
        of, lives = self.lives
        if of != self.peer_boot_id:
            assert self.peer_boot_id is not None
            assert self.capability is not None
            here, there = self.boot_id, self.peer_boot_id
            boots = (here, there) if self.is_master else (there, here)
            lives = lives_of_link(self.capability.link, boots)
            self.lives = (there, lives)
        return link_pair_id(lives, herald_sequence)

    def remember(self, herald_sequence: int, pair: bytes, purpose: bytes) -> None:
        """Note an announced pair; the oldest is forgotten beyond the limit."""
        announced = self.announced
        announced[herald_sequence] = Announced(pair, purpose)
        if len(announced) > PAIR_HISTORY_MAX:
            oldest, _ = announced.popitem(last=False)
            self.forgotten_until = max(self.forgotten_until, oldest + 1)

    def note_void(self, herald_sequence: int) -> None:
        """A pair that was never announced is void here; the oldest is forgotten."""
        self.void[herald_sequence] = None
        if len(self.void) > PAIR_HISTORY_MAX:
            del self.void[next(iter(self.void))]

    def forget_pairs(self) -> None:
        """All pairs announced are void, which was said."""
        self.announced.clear()
        self.void.clear()
        self.forgotten_until = 0

    def option_for(self, min_fidelity: float) -> GenerationOption | None:
        """The fastest way to run the link that keeps the promise (the FEU's choice)."""
        good = [o for o in self.options if o.bell_probabilities[0] >= min_fidelity]
        return max(good, key=lambda o: (_rate_hz(o), o.bell_probabilities[0]), default=None)

    def option_of(self, bright_state: float | None) -> GenerationOption | None:
        """The option of this bright state."""
        found = (option for option in self.options if option.bright_state == bright_state)
        return next(found, None)

    @property
    def options(self) -> list[GenerationOption]:
        """The ways to run the link, with what may be promised of each."""
        assert self.capability is not None
        if not self.lowered:
            return self.capability.options
        options = []
        for option in self.capability.options:
            offered = self.lowered.get(option.bright_state)
            if offered is None:
                options.append(option)
            else:
                options.append(replace(option, bell_probabilities=lowered(option, offered)))
        return options

    @property
    def offers(self) -> list[LinkOption]:
        """The options `option_for` chooses from, best fidelity first and ever faster."""
        ordered = sorted(self.options, key=lambda o: (-o.bell_probabilities[0], -_rate_hz(o)))
        offers: list[LinkOption] = []
        for option in ordered:
            is_tested = option.test_round is not None or option.measured_round is not None
            kept = 1.0 - self.test_share if is_tested else 1.0
            rate_hz = _rate_hz(option) * kept
            if not offers or rate_hz > offers[-1].rate_hz:
                offers.append(
                    LinkOption(bell_probabilities=option.bell_probabilities, rate_hz=rate_hz)
                )
        return offers

    @property
    def best_fidelity(self) -> float:
        """The best a pair of this link can be when it is announced."""
        return max(option.bell_probabilities[0] for option in self.options)

    def goodness(self, option: GenerationOption, expected: float) -> float:
        """The estimate for a pair of `option`: what its device expects, or a lower offer."""
        if not self.lowered:
            return expected
        return min(expected, self.lowered.get(option.bright_state, 1.0))


def _rate_hz(option: GenerationOption) -> float:
    """Pairs per second with one slot."""
    return option.probability * 1e9 / option.cycle_ns
