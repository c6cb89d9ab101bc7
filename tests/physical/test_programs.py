"""Device programs: what is armed is answered once, and no qubit is anybody's but its owner's."""

import random
from typing import Any, Final

import pytest

from qstack.errors import ErrorCode
from qstack.machine import FABRIC, FromPeer, OwnerGone, PeerDown, PeerUp, Record
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.params import RESULT_MIN_NS
from qstack.physical.program import (
    STEPS_MAX,
    Arm,
    Disarm,
    Place,
    ProgramResult,
    Step,
    problem_of,
    swap_program,
)
from qstack.physical.program_device import (
    ProgramDone,
)
from qstack.physical.service import (
    AttemptsStop,
    CallFailed,
    DeviceLost,
    Free,
    Heralded,
    Measure,
    Measured,
    QubitsFreed,
    Transfer,
)
from qstack.runtime.layer_messages import REGISTRY
from qstack.wire.codec import encode
from tests.physical.calls import APP, MS, TOKEN, allocate, bench, start
from tests.physical.test_program_book import HERALD, READ_Z, armed, device, results
from tests.physical.worlds import Bench

OTHER: Final = b"u" * 16


def programmed(nodes: str = "abc", probability: float = 1.0, **more: Any) -> Bench:
    return bench(
        nodes, probability, runs_programs=True, **({"memory": 12, "comm_qubits": 12} | more)
    )


def arm(
    on: Bench,
    places: list[Place],
    steps: list[Step],
    *,
    call: int = 1,
    owner: str = "network",
    node: str = "b",
    for_ns: int = 50 * MS,
) -> list[Any]:
    asked = Arm(call=call, places=places, steps=steps, deadline_ns=on.now + for_ns)
    return on.tell(node, owner, asked)


def answer(on: Bench, owner: str = "network", node: str = "b") -> Any:
    (said,) = [
        each for each in on.heard(node, owner) if isinstance(each, ProgramResult | CallFailed)
    ]
    return said


def attempt(on: Bench, link: str, batch: int, token: bytes = TOKEN) -> None:
    """Pairs of a link from now on."""
    for node in link.split("-"):
        on.tell(node, "link", start(batch, link=link, token=token))


def holding(on: Bench, batch: int = 90, owner: str = "network") -> bytes:
    """A qubit of a pair of a-b that is `owner`'s at b."""
    attempt(on, "a-b", batch, OTHER)
    on.run(on.now + MS)
    qubit: bytes = on.heard("b", "link", Heralded)[-1].qubit
    on.tell("b", "link", Transfer(call=None, qubit=qubit, to=owner))
    return qubit


def lose_device(on: Bench, boot_id: bytes) -> None:
    """The device of b goes, and there is another one."""
    on.handle("b", PeerDown(FABRIC))
    on.fabric.run(on.now + 1)
    on.fabric.node_down("b", on.now)
    on.fabric.node_up("b", boot_id)
    on.forget("b")
    on.handle("b", PeerUp(FABRIC, b"fabricid"))


def taken(on: Bench, node: str = "b") -> tuple[int, int]:
    """Places of memory, and qubits of the device."""
    qubits = on.nodes[node].summary()["qubits"]
    assert isinstance(qubits, int)
    return qubits, on.fabric.snapshot().qubits[node]


# --- heralds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"decoupling_spacing_ns": 700, "decoupling_axis": "xy"}])
def test_a_swap_is_done_when_both_are_heralded_and_says_what_the_ends_have(
    more: dict[str, Any],
) -> None:
    """Also where the qubits are decoupled: the exact state of the ends is that of all bits."""
    on = programmed(**more)
    arm(on, *swap_program(HERALD, Place(link="b-c", token=OTHER)))
    attempt(on, "a-b", 1)
    on.run(on.now + 123_457)
    attempt(on, "b-c", 2, OTHER)
    on.run(on.now + MS)
    said = answer(on)
    first, second = on.heard("b", "link", Heralded)
    assert said.qubits == [first.qubit, second.qubit]
    assert (said.steps_done, said.error) == (1, None)
    told_ns = [at for at, node, _, each in on.told if node == "b" and each is second]
    assert said.began_at_ns == told_ns[0]  # at the herald, to the nanosecond
    ends = [on.heard(node, "link", Heralded)[0].qubit for node in "ac"]
    x, z = (
        first_bit ^ second_bit ^ bit
        for first_bit, second_bit, bit in zip(
            (first.x_bit, first.z_bit), (second.x_bit, second.z_bit), said.bits, strict=True
        )
    )
    keys = QubitKey("a", ends[0]), QubitKey("c", ends[1])
    assert on.fabric.pair_fidelity(*keys, on.now, x=x, z=z) == pytest.approx(1.0, abs=1e-9)
    assert taken(on) == (0, 0)
    (gone,) = on.tell("b", "link", Measure(call=7, qubit=first.qubit, basis="Z"))
    assert gone.error == "GONE"


def test_a_qubit_that_waits_is_swapped_with_the_next_herald() -> None:
    on = programmed()
    mine = holding(on)
    arm(on, *swap_program(Place(qubit=mine), HERALD))
    (armed,) = on.tell("b", "network", Measure(call=8, qubit=mine, basis="Z"))
    assert armed.error == "OUT_OF_STATE"
    attempt(on, "a-b", 1)
    on.run(on.now + MS)
    result = on.heard("b", "network", ProgramResult)[0]
    assert result.qubits == [mine, on.heard("b", "link", Heralded)[-1].qubit]
    assert taken(on) == (0, 0)


def test_heralds_are_for_who_has_waited_longest_and_of_the_token_named() -> None:
    on = programmed()
    arm(on, [HERALD], [READ_Z], call=1)
    arm(on, [HERALD], [READ_Z], call=2)
    attempt(on, "a-b", 1, OTHER)  # of another request: nobody's
    on.run(on.now + MS)
    for batch in (2, 3):
        attempt(on, "a-b", batch)
        on.run(on.now + MS)
    heralds = [each.qubit for each in on.heard("b", "link", Heralded)]
    results = [(each.call, each.qubits) for each in on.heard("b", "network", ProgramResult)]
    assert results == [(1, [heralds[1]]), (2, [heralds[2]])]
    assert taken(on) == (1, 1)


def test_what_a_program_does_not_read_is_its_owners_as_before() -> None:
    on = programmed()
    arm(on, [HERALD], [Step("gate", [0], gate="x")])
    attempt(on, "a-b", 1)
    on.run(on.now + MS)
    qubit = on.heard("b", "link", Heralded)[0].qubit
    assert answer(on).bits == []
    on.tell("b", "link", Measure(call=3, qubit=qubit, basis="Z"))
    on.run(on.now + MS)
    assert len(on.heard("b", "link", Measured)) == 1
    assert taken(on) == (0, 0)


# --- local sequences -----------------------------------------------------------------------------


TELEPORT: Final = [
    Step("initialise", [0]), Step("initialise", [1]), Step("initialise", [2]),
    Step("gate", [0], gate="rx", angle=0.7), Step("gate", [0], gate="t"),
    Step("gate", [1], gate="h"), Step("gate", [1, 2], gate="cnot"),
    Step("bell-measure", [0, 1]),
    Step("gate", [2], gate="x", when=[0]), Step("gate", [2], gate="z", when=[1]),
    Step("gate", [2], gate="rz", angle=-0.7853981633974483),
    Step("gate", [2], gate="rx", angle=-0.7), Step("measure", [2], basis="Z"),
]  # fmt: skip


@pytest.mark.parametrize("spacing_ns", [None, 300, 1_100, 2_900])
def test_paulis_upon_what_was_read_teleport_a_state_within_one_program(
    spacing_ns: int | None,
) -> None:
    """Whatever the bits, and whatever pulses flip on the way: the state comes back to 0."""
    more: dict[str, Any] = {}
    if spacing_ns is not None:
        more = {"decoupling_spacing_ns": spacing_ns, "decoupling_axis": "xy"}
    on = programmed(**more)
    seen = set()
    for call in range(12):
        arm(on, [Place(), Place(), Place()], TELEPORT, call=call, owner=APP)
        on.run(on.now + MS)
        result = on.heard("b", APP, ProgramResult)[-1]
        assert (result.steps_done, result.error) == (len(TELEPORT), None)
        assert result.bits[2] == 0
        seen.add(tuple(result.bits[:2]))
        assert taken(on) == (0, 0)
    assert len(seen) > 2


def test_a_local_program_takes_the_device_for_the_time_of_its_steps() -> None:
    on = programmed("ab")
    qubit = allocate(on, "network", "b")
    begun_ns = on.now
    steps = [Step("gate", [0], gate="x"), READ_Z]
    arm(on, [Place(qubit=qubit)], steps)
    on.tell("b", APP, Measure(call=5, qubit=qubit, basis="Z"))  # not the owner's
    other = allocate(on, APP, "b")
    times = [at for at, _, _, each in on.told if isinstance(each, ProgramResult)]
    assert times == [begun_ns + 100 + 3_000]
    assert [at for at, _, to, _ in on.told if to == APP][-1] == begun_ns + 100 + 3_000 + 1_000
    assert on.heard("b", APP)[0].error == "NOT_OWNER"
    assert taken(on) == (1, 1)
    on.tell("b", APP, Free(qubit=other))
    assert taken(on)[0] == 0


def test_a_step_that_cannot_be_done_ends_the_program_and_says_which() -> None:
    on = programmed("ab")  # without storage
    steps = [Step("initialise", [0]), Step("move", [0], to="storage"), READ_Z]
    arm(on, [Place()], steps)
    on.run(on.now + MS)
    said = answer(on)
    assert (said.steps_done, said.error, said.bits) == (1, "UNSUPPORTED", [])
    (left,) = said.qubits
    on.tell("b", "network", Measure(call=2, qubit=left, basis="Z"))
    on.run(on.now + MS)
    assert len(on.heard("b", "network", Measured)) == 1


# --- programs that do not begin ------------------------------------------------------------------


def failed(on: Bench, error: str, qubit: bytes) -> None:
    """The program failed, and its qubit is as it was."""
    assert answer(on).error == error
    on.tell("b", "network", Measure(call=9, qubit=qubit, basis="Z"))
    on.run(on.now + MS)
    assert len(on.heard("b", "network", Measured)) == 1
    assert taken(on)[0] == taken(on)[1] == 0


def test_a_deadline_that_passes_leaves_everything_as_it_was() -> None:
    on = programmed()
    qubit = holding(on)
    arm(on, *swap_program(Place(qubit=qubit), HERALD), for_ns=10_000)
    on.run(on.now + 9_999 + RESULT_MIN_NS)
    assert on.heard("b", "network", CallFailed) == []
    on.run(on.now + 2)
    failed(on, "TIMEOUT", qubit)


def test_a_program_that_has_begun_runs_past_its_deadline_and_withdrawal() -> None:
    on = programmed("ab")
    arm(on, [HERALD], [Step("gate", [0], gate="h")] * 3 + [READ_Z], for_ns=4_300)
    attempt(on, "a-b", 1)  # emitted at 3 us (cycle), heralded 2 us later
    while not on.heard("b", "link", Heralded):
        on.run(on.now + 50)
    on.tell("b", "network", Disarm(program=1))
    on.run(on.now + MS)
    said = answer(on)
    assert said.steps_done == 4
    assert said.began_at_ns < 4_300 < said.began_at_ns + 3_300
    assert taken(on) == (0, 0)


def test_what_is_withdrawn_in_time_has_changed_nothing() -> None:
    on = programmed()
    qubit = holding(on)
    arm(on, *swap_program(Place(qubit=qubit), HERALD))
    assert on.tell("b", APP, Disarm(program=1)) == []  # not theirs: nothing happens
    on.tell("b", "network", Disarm(program=1))
    on.run(on.now + 10_000)
    attempt(on, "a-b", 1)
    on.run(on.now + MS)
    on.tell("b", "link", Free(qubit=on.heard("b", "link", Heralded)[-1].qubit))
    failed(on, "CANCELLED", qubit)


def test_a_qubit_that_is_freed_takes_its_program_with_it() -> None:
    on = programmed()
    arm(on, *swap_program(Place(qubit=holding(on)), HERALD))
    on.tell("b", "network", Free(qubit=on.heard("b", "link", Heralded)[0].qubit))
    assert taken(on)[0] == 1  # until the device has said so
    on.run(on.now + MS)
    assert answer(on).error == "CANCELLED"
    assert taken(on) == (0, 0)


# --- owners, devices and layers go ---------------------------------------------------------------


def test_an_owner_that_goes_is_told_nothing_and_leaves_nothing() -> None:
    on = programmed()
    arm(on, *swap_program(Place(qubit=holding(on)), HERALD))
    arm(on, [Place()], [Step("initialise", [0])], call=2)
    on.handle("b", OwnerGone("network"))
    on.run(on.now + MS)
    assert on.heard("b", "network", ProgramResult | CallFailed) == []
    assert len(on.heard("b", "transport", QubitsFreed)) == 1
    on.run(on.now + 100 * MS)
    assert taken(on) == (0, 0)


def test_a_device_that_goes_answers_every_program_and_a_new_one_knows_none() -> None:
    on = programmed()
    qubit = holding(on)
    arm(on, *swap_program(Place(qubit=qubit), HERALD))
    lose_device(on, b"anotherb")
    assert answer(on).error == "DEVICE_LOST"
    assert on.heard("b", "network", DeviceLost)
    on.run(on.now + 100 * MS)  # also past the deadline
    assert len(on.heard("b", "network", CallFailed)) == 1
    assert on.fabric.next_event_ns() is None
    arm(on, [HERALD], [READ_Z], call=2)
    assert on.heard("b", "network", CallFailed)[1:] == []


def test_a_program_of_a_device_that_is_away_fails_at_once() -> None:
    on = programmed()
    on.handle("b", PeerDown(FABRIC))
    (lost,) = arm(on, [HERALD], [READ_Z])
    assert lost.error == "DEVICE_LOST"


def test_stopped_attempts_leave_a_program_waiting_for_the_next() -> None:
    on = programmed(probability=0.0)
    arm(on, [HERALD], [READ_Z], for_ns=MS)
    attempt(on, "a-b", 1)
    on.tell("b", "link", AttemptsStop(batch=1))
    on.run(on.now + 2 * MS)
    assert answer(on).error == "TIMEOUT"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"steps_done": 2}, "2 of 1 steps"),
        ({"steps_done": 0}, "0 of 1 steps"),
        ({"error": "GONE"}, "1 of 1 steps"),
        ({"qubits": []}, "its qubits are others"),
        ({"qubits": [OTHER, OTHER]}, "its qubits are others"),
        ({"bits": [1]}, "1 bits"),
        ({"pulses": [3]}, "1 pulses"),
    ],
)
def test_a_result_that_cannot_be_is_refused_and_the_program_answered(
    wrong: dict[str, Any], why: str
) -> None:
    on = programmed()
    qubit = holding(on)
    arm(on, *swap_program(Place(qubit=qubit), HERALD))
    ((operation, _),) = on.nodes["b"]._programs.open.items()
    said: dict[str, Any] = {
        "qubits": [qubit, OTHER], "bits": [0, 1], "pulses": [], "steps_done": 1, "error": None,
        "detail": "", "began_at_ns": on.now,
    }  # fmt: skip
    done = ProgramDone(operation=operation, **(said | wrong))
    effects = on.handle("b", FromPeer(FABRIC, done))
    assert answer(on).error == "INVALID"
    assert any(isinstance(each, Record) and why in str(each.fields) for each in effects)
    on.handle("b", FromPeer(FABRIC, done))  # and again: it is no program's any more
    on.tell("b", "network", Free(qubit=qubit))
    on.run(on.now + 100 * MS)
    assert taken(on) == (0, 0)


# --- refusals ------------------------------------------------------------------------------------


BAD: Final[list[tuple[str, list[Place], list[Step]]]] = [
    ("herald has a link and a token", [Place(link="a-b")], [READ_Z]),
    ("a qubit or a herald", [Place(qubit=TOKEN, link="a-b", token=TOKEN)], [READ_Z]),
    ("two places are one qubit", [Place(qubit=TOKEN)] * 2, [Step("bell-measure", [0, 1])]),
    ("2 different places", [HERALD], [Step("bell-measure", [0, 0])]),
    ("2 different places", [HERALD], [Step("gate", [0], gate="cz")]),
    ("there is no place 1", [HERALD], [Step("measure", [1], basis="X")]),
    ("place 1 is in no step", [HERALD, HERALD], [READ_Z]),
    ("was read before", [HERALD], [READ_Z, READ_Z]),
    ("a gate has a name", [HERALD], [Step("gate", [0])]),
    ("h has no angle", [HERALD], [Step("gate", [0], gate="h", angle=1.0)]),
    ("those of a gate", [HERALD], [Step("measure", [0], gate="x", basis="X")]),
    ("a measurement has a basis", [HERALD], [Step("measure", [0])]),
    ("a measurement has a basis", [HERALD], [Step("initialise", [0], basis="X")]),
    ("says where to", [HERALD], [Step("move", [0])]),
    ("only Pauli gates", [HERALD, HERALD], [READ_Z, Step("gate", [1], gate="h", when=[0])]),
    ("not read before", [HERALD], [Step("gate", [0], gate="x", when=[0])]),
    ("not initialised first", [Place()], [READ_Z]),
    ("no link b-z here", [Place(link="b-z", token=TOKEN)], [READ_Z]),
    ("no link a-c here", [Place(link="a-c", token=TOKEN)], [READ_Z]),
]  # fmt: skip


@pytest.mark.parametrize(("why", "places", "steps"), BAD)
def test_a_program_that_makes_no_sense_is_refused_by_the_layer_and_by_the_device(
    why: str, places: list[Place], steps: list[Step]
) -> None:
    on = programmed()
    (refused,) = arm(on, places, steps)
    assert (refused.error, why in refused.detail) == ("BAD_REQUEST", True), refused
    fabric, _ = device(0)
    fabric.apply("b", armed(10, places, steps))
    (said,) = results(fabric)
    assert said.error == "BAD_REQUEST"


def test_whose_qubits_and_heralds_a_program_may_name() -> None:
    on = programmed("ab", memory=2)
    theirs = allocate(on, APP, "b")
    for place, owner, error in (
        (Place(qubit=theirs), "network", "NOT_OWNER"),
        (Place(qubit=TOKEN), "network", "GONE"),
        (HERALD, APP, "NOT_OWNER"),
    ):
        (refused,) = arm(on, [place], [READ_Z], owner=owner)
        assert refused.error == error
    waiting = [Place(qubit=theirs), Place(), Place()]
    steps = [Step("initialise", [1]), Step("initialise", [2]), READ_Z]
    (full,) = arm(on, waiting, steps, owner=APP)
    assert full.error == "NO_RESOURCES"
    (late,) = arm(on, [Place(qubit=theirs)], [READ_Z], owner=APP, for_ns=0)
    assert late.error == "TIMEOUT"
    on.run(on.now + MS)
    assert taken(on) == (1, 1)  # what was admitted has been given back
    assert on.tell("b", APP, Measure(call=4, qubit=theirs, basis="Z")) == []


def test_a_device_that_runs_no_programs_says_so() -> None:
    on = bench("ab")
    arm(on, [HERALD], [READ_Z])
    on.run(on.now + MS)
    assert answer(on).error == "UNSUPPORTED"


# --- all together --------------------------------------------------------------------------------


def test_whatever_happens_each_program_is_answered_once_and_nothing_is_left() -> None:
    """Random arming, heralds, freeing, withdrawing, lost devices; then everything is freed."""
    for seed in range(60):
        luck = random.Random(seed)
        on = programmed("abc", luck.choice([0.2, 1.0]), memory=6)
        armed_calls, batches = 0, 0
        for _ in range(25):
            mine = [q.id for q in on.nodes["b"]._memory.owned_by("network")]
            match luck.randrange(8):
                case 0 | 1:
                    batches += 1
                    attempt(on, luck.choice(["a-b", "b-c"]), batches, luck.choice([TOKEN, OTHER]))
                case 2:
                    place = Place(qubit=luck.choice(mine)) if mine else HERALD
                    other = Place(link="b-c", token=OTHER)
                    for_ns = luck.randrange(1, 200_000)
                    arm(on, *swap_program(place, other), call=armed_calls, for_ns=for_ns)
                    armed_calls += 1
                case 3 if mine:
                    on.tell("b", "network", Free(qubit=luck.choice(mine)))
                case 4:
                    on.tell("b", "network", Disarm(program=luck.randrange(armed_calls + 1)))
                case 7 if not luck.randrange(4):
                    lose_device(on, b"boot%04d" % on.now)
                case 5 if mine:
                    call = 1000 + on.now
                    on.tell("b", "network", Measure(call=call, qubit=luck.choice(mine), basis="X"))
                case _:
                    pass
            for qubit in on.nodes["b"]._memory.owned_by("link"):
                on.tell("b", "link", Transfer(call=None, qubit=qubit.id, to="network"))
            on.run(on.now + luck.choice([0, 700, 9_000, 60_000]))
            assert taken(on)[1] <= 6
        for node in "abc":
            for batch in range(batches + 1):
                on.tell(node, "link", AttemptsStop(batch=batch))
        on.run(on.now + 10 * MS)
        heard = on.heard("b", "network")
        answers = [
            each.call for each in heard
            if isinstance(each, ProgramResult | CallFailed) and each.call < 1000
        ]  # fmt: skip
        assert sorted(answers) == list(range(armed_calls))
        for owner in ("network", "link"):
            for qubit in on.nodes["b"]._memory.owned_by(owner):
                on.tell("b", owner, Free(qubit=qubit.id))
        on.run(on.now + MS)
        assert taken(on) == (0, 0)


def test_programs_cross_the_wire_and_are_bounded_there() -> None:
    asked = armed(3, [HERALD, Place(qubit=TOKEN)], [Step("bell-measure", [0, 1])])
    assert REGISTRY.decode(encode(asked)) == asked
    long = armed(3, [HERALD], [Step("gate", [0], gate="x")] * (STEPS_MAX + 1))
    with pytest.raises(Exception, match=ErrorCode.INVALID.name):
        REGISTRY.decode(encode(long))
    assert problem_of(asked.places, asked.steps) == ""
