"""The states of all qubits of the network.

Qubits that may be entangled share a group: one tensor with an axis per qubit. Noise of waiting is
applied lazily, to a qubit when it is touched: exact, for channels on different qubits commute, and
the decay laws give the same for any number of touches.

Rules
1. Operations are instantaneous maps at their time; the time they take is waiting time.
2. A group larger than GROUP_QUBITS_MAX is refused, never approximated.
3. Only `RefusedError` is raised, before anything has changed.
4. Where memories are decoupled the pi pulses are done: states are those of the qubits as they are,
   not as they would be without. A gate that is no Pauli operator is done without them in its way:
   the device undoes the pulses first, and counts anew.
"""

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from msgspec import Struct

from qstack.errors import ErrorCode
from qstack.physical.device import Place
from qstack.physical.fabric.keys import QubitKey
from qstack.physical.fabric.witness import Witness
from qstack.physical.generation import has_storage
from qstack.physical.hardware import World
from qstack.physical.models import storage
from qstack.physical.models.decoupling import Frame, frame_after, pulses_by, toggled
from qstack.physical.params import GROUP_QUBITS_MAX
from qstack.physical.profile import Profile
from qstack.quantum import channels, decay, state
from qstack.quantum.decay import Decay
from qstack.quantum.gates import gate_transfer, pauli_frame
from qstack.quantum.measurement import bell_measurement, readout_effect
from qstack.quantum.pauli import Basis, FloatArray

NS = 1e-9
OUTCOMES = ((0, 0), (0, 1), (1, 0), (1, 1))
PAULIS = ("x", "y", "z")


class RefusedError(Exception):
    """An operation cannot be done; nothing has changed."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Move(Struct, frozen=True, gc=False):
    """A coming move from the communication qubit to storage: done at `at_ns`."""

    at_ns: int
    depolarising: float


class _Group:
    """One joint state."""

    __slots__ = ("qubits", "tensor")

    def __init__(self, tensor: FloatArray, qubits: "list[_Qubit]") -> None:
        self.tensor = tensor
        self.qubits = qubits
        for qubit in qubits:
            qubit.group = self


class _Qubit:
    """One qubit: since when it lives and up to when its noise has been applied."""

    __slots__ = (
        "attempts",
        "born_ns",
        "echo_ns",
        "group",
        "is_stored",
        "key",
        "move",
        "profile",
        "touched_ns",
    )

    def __init__(
        self,
        key: QubitKey,
        profile: Profile,
        born_ns: int,
        attempts: int,
        move: Move | None,
        *,
        is_stored: bool,
    ) -> None:
        self.key = key
        self.is_stored = is_stored  # its node hears of it when it is
        self.profile = profile
        self.born_ns = self.touched_ns = born_ns
        self.echo_ns = born_ns  # since when pulses are counted
        self.attempts = attempts
        self.move = move
        self.group: _Group

    @property
    def axis(self) -> int:
        return self.group.qubits.index(self)


class Register:
    """All states. `attempts_before(node, at_ns)` counts the attempts that disturb idle qubits."""

    def __init__(
        self, world: World, attempts_before: Callable[[str, int], int], witness: Witness
    ) -> None:
        self._profiles = {name: node.profile for name, node in world.nodes.items()}
        self._initial = {
            name: np.array([1.0, 0.0, 0.0, 2.0 * profile.init_fidelity - 1.0])
            for name, profile in self._profiles.items()
        }
        for tensor in self._initial.values():
            tensor.setflags(write=False)
        self._has_storage = {
            name: has_storage(node.memory, node.profile.comm_qubits)
            for name, node in world.nodes.items()
        }
        self.decoupled = frozenset(
            name
            for name, profile in self._profiles.items()
            if profile.decoupling_spacing_ns is not None
        )
        """The nodes whose qubits are turned by pulses that are counted."""
        self._attempts_before = attempts_before
        self._witness = witness
        self._qubits: dict[QubitKey, _Qubit] = {}

    # --- making and ending ---

    def __contains__(self, key: QubitKey) -> bool:
        return key in self._qubits

    def count(self, node: str) -> int:
        """How many qubits of `node` there are."""
        return len(self.qubits_of(node))

    def qubits_of(self, node: str) -> list[QubitKey]:
        """The qubits of `node`."""
        return [key for key in self._qubits if key.node == node]

    def initialise(self, key: QubitKey, at_ns: int) -> None:
        """A qubit, new or old, in state 0 from `at_ns` on, or in 1 with the profile's error."""
        self.release(key)
        _Group(self._initial[key.node], [self._add(key, at_ns, None)])

    def add_pair(
        self,
        tensor: FloatArray,
        ends: tuple[QubitKey, QubitKey],
        moves: tuple[Move | None, Move | None],
        at: int,
    ) -> None:
        """A heralded pair (4, 4), both of its qubits emitted at `at`."""
        _Group(tensor, [self._add(ends[0], at, moves[0]), self._add(ends[1], at, moves[1])])

    def store(self, key: QubitKey, move: Move) -> None:
        """When the move of a heralded qubit comes is known now. Raises `RefusedError`."""
        self._get(key).move = move

    def add_prepared(self, tensor: FloatArray, key: QubitKey, move: Move | None, at: int) -> None:
        """A qubit (4,), emitted at `at`, the other half of whose pair was read at once."""
        _Group(tensor, [self._add(key, at, move)])

    def release(self, key: QubitKey) -> None:
        """Forget a qubit; nothing happens if it is not there."""
        qubit = self._qubits.get(key)
        if qubit is None:
            return
        group = qubit.group
        if len(group.qubits) > 1:  # else nobody is left to have a state
            group.tensor = state.discard(group.tensor, qubit.axis)
        self._remove(qubit)

    # --- operations ---

    def gate(self, keys: list[QubitKey], name: str, angle: float, at_ns: int) -> None:
        """A gate and its depolarising noise. Raises `RefusedError`."""
        if len(keys) == 1:
            qubit = self._get(keys[0])
            self._age(qubit, at_ns)
            if name not in PAULIS:
                self._undo_pulses(qubit)
            noisy = _noisy_gate(name, angle, qubit.profile.gate_1q_depolarising)
            group = qubit.group
            group.tensor = state.apply(group.tensor, qubit.axis, noisy)
            self._witness.changed(qubit.key, noisy)
            return
        first, second = self._get(keys[0]), self._get(keys[1])
        _require_reach(first, second)
        for key in keys:
            self._witness.lost(key)
        group = self._joined(first, second)
        self._age(first, at_ns)
        self._age(second, at_ns)
        self._undo_pulses(first)
        self._undo_pulses(second)
        noisy = _noisy_gate(name, angle, first.profile.gate_2q_depolarising)
        group.tensor = state.apply_two(group.tensor, first.axis, second.axis, noisy)

    def move(self, key: QubitKey, to: Place, at_ns: int) -> None:
        """Bring a qubit to a communication qubit or to storage, depolarised by the profile's move.

        Nothing happens to one that is there. Raises `RefusedError`: no storage, no free place.
        """
        qubit = self._get(key)
        profile = qubit.profile
        if not self._has_storage[key.node]:
            raise RefusedError(ErrorCode.UNSUPPORTED, f"{key.node} has no storage")
        if qubit.is_stored == (to == "storage"):
            return
        others = (self._qubits[other] for other in self.qubits_of(key.node))
        if to == "communication" and profile.comm_qubits <= sum(
            not other.is_stored for other in others
        ):
            raise RefusedError(ErrorCode.NO_RESOURCES, "the communication qubits are taken")
        self._age(qubit, at_ns)
        noise = channels.depolarising(profile.move_depolarising)
        qubit.group.tensor = state.apply(qubit.group.tensor, qubit.axis, noise)
        self._witness.changed(key, noise)
        qubit.is_stored = to == "storage"

    def measure(self, key: QubitKey, basis: Basis, at_ns: int, uniform: float) -> int:
        """The reported outcome; the qubit is gone. Raises `RefusedError`."""
        qubit = self._get(key)
        self._age(qubit, at_ns)
        group, axis, profile = qubit.group, qubit.axis, qubit.profile
        tensor = group.tensor
        self._witness.read(key)
        if self._witness.is_watching and len(group.qubits) == 2:
            pair = tensor if axis == 0 else tensor.T
            for place, each in enumerate((qubit, group.qubits[1 - axis])):
                pair = _framed(pair, place, _frame(each, each.touched_ns))
            self._witness.first_read(key, group.qubits[1 - axis].key, pair)
        effects = _readout_effects(basis, profile.readout_f0, profile.readout_f1)
        outcome = _choose(effects.dot(_alone(tensor, axis)).tolist(), uniform)
        if tensor.ndim > 1:  # else nobody is left to have a state
            group.tensor, _ = state.normalised(state.contract(tensor, axis, effects[outcome]))
        self._remove(qubit)
        return outcome

    def bell_measure(
        self, first_key: QubitKey, second_key: QubitKey, at_ns: int, uniform: float
    ) -> tuple[int, int]:
        """The reported Bell state (x, z); both qubits are gone. Raises `RefusedError`."""
        first, second = self._get(first_key), self._get(second_key)
        _require_reach(first, second)
        together = first.group is second.group
        size = len(first.group.qubits) + (0 if together else len(second.group.qubits)) - 2
        _require_size(size)
        self._age(first, at_ns)
        self._age(second, at_ns)
        effects = _bell_effects(first.profile)
        pair = _reduced(first, second)
        place = _choose(effects.reshape(4, 16).dot(pair.reshape(16)).tolist(), uniform)
        if together:
            rest = state.contract_two(first.group.tensor, first.axis, second.axis, effects[place])
        else:
            # A @ S @ B, with as many further axes as the groups have: no larger state is built.
            rest = state.swapped(
                (first.group.tensor, first.axis), effects[place], (second.group.tensor, second.axis)
            )
        rest, _ = state.normalised(rest)
        if not together:
            _Group(rest, first.group.qubits + second.group.qubits)
        first.group.tensor = rest
        self._remove(first)
        self._remove(second)
        return OUTCOMES[place]

    def pulses(self, key: QubitKey, at_ns: int) -> int:
        """How many pulses have turned a qubit up to `at_ns`. Raises `RefusedError`."""
        return _pulses(self._get(key), at_ns)

    def reduced_pair(
        self, first_key: QubitKey, second_key: QubitKey, at_ns: int, *, with_pulses: bool = False
    ) -> FloatArray:
        """The (4, 4) of two qubits as it is at `at_ns`; changes nothing. Raises `RefusedError`.

        `with_pulses`: as the hardware has them; else as they stand for in the frame of the pulses.
        """
        qubits = self._get(first_key), self._get(second_key)
        pair = _reduced(*qubits)
        for axis, qubit in enumerate(qubits):
            if at_ns < qubit.touched_ns:
                raise RefusedError(ErrorCode.BAD_REQUEST, "the qubit was touched after that time")
            attempts = self._disturbing(qubit.key.node, qubit.profile, at_ns) - qubit.attempts
            waiting = _waiting(qubit, at_ns, attempts).transfer
            is_decoupled = qubit.profile.decoupling_spacing_ns is not None
            if is_decoupled:
                waiting = _with_pulses(qubit, waiting, at_ns)
            pair = state.apply(pair, axis, waiting)
            if is_decoupled and not with_pulses:
                pair = _framed(pair, axis, _frame(qubit, at_ns))
        return pair

    # --- inside ---

    def _add(self, key: QubitKey, born_ns: int, move: Move | None) -> _Qubit:
        node = key.node
        profile = self._profiles[node]
        attempts = self._disturbing(node, profile, born_ns)
        qubit = self._qubits[key] = _Qubit(
            key, profile, born_ns, attempts, move, is_stored=self._has_storage[node]
        )
        return qubit

    def _get(self, key: QubitKey) -> _Qubit:
        try:
            return self._qubits[key]
        except KeyError:
            raise RefusedError(
                ErrorCode.GONE, f"no qubit {key.qubit.hex()} at {key.node}"
            ) from None

    def _remove(self, qubit: _Qubit) -> None:
        """A qubit goes: the state of its group is that of the others by now."""
        qubit.group.qubits.remove(qubit)
        self._witness.lost(qubit.key)
        del self._qubits[qubit.key]

    def _joined(self, first: _Qubit, second: _Qubit) -> _Group:
        """The one group of two qubits, merged if need be."""
        if first.group is second.group:
            return first.group
        a, b = first.group, second.group
        _require_size(len(a.qubits) + len(b.qubits))
        return _Group(state.merge(a.tensor, b.tensor), a.qubits + b.qubits)

    def _age(self, qubit: _Qubit, at_ns: int) -> None:
        """Apply to `qubit` what waiting until `at_ns` has done to it."""
        if at_ns < qubit.touched_ns:
            return
        group, profile = qubit.group, qubit.profile
        attempts = self._disturbing(qubit.key.node, profile, at_ns)
        done = waiting = _waiting(qubit, at_ns, attempts - qubit.attempts).transfer
        if profile.decoupling_spacing_ns is not None:
            done = _with_pulses(qubit, waiting, at_ns)
        group.tensor = state.apply(group.tensor, qubit.axis, done)
        self._witness.changed(qubit.key, waiting)
        qubit.touched_ns = at_ns
        qubit.attempts = attempts
        if qubit.move is not None and qubit.move.at_ns <= at_ns:
            qubit.move = None

    def _undo_pulses(self, qubit: _Qubit) -> None:
        """Bring a qubit that was just touched to what it stands for; its pulses count anew."""
        if qubit.profile.decoupling_spacing_ns is None:
            return
        frame = _frame(qubit, qubit.touched_ns)
        qubit.group.tensor = _framed(qubit.group.tensor, qubit.axis, frame)
        qubit.echo_ns = qubit.touched_ns

    def _disturbing(self, node: str, profile: Profile, at_ns: int) -> int:
        """The attempts made at `node` before `at_ns`, where they disturb idle qubits at all."""
        return self._attempts_before(node, at_ns) if profile.attempt_dephasing > 0.0 else 0


def _waiting(qubit: _Qubit, at_ns: int, attempts: int) -> Decay:
    """The channel of waiting since the last touch: decay, a move, so many attempts.

    Where the qubit is decoupled it is that of what the qubit stands for.
    """
    move, start_ns = qubit.move, qubit.touched_ns
    if move is None:
        waiting = _decay(qubit, start_ns, at_ns, is_stored=qubit.is_stored)
    elif move.at_ns <= at_ns and _matters(move, qubit.profile):
        waiting = _decay(qubit, start_ns, move.at_ns, is_stored=False)
        waiting = waiting.then(decay.depolarised(move.depolarising))
        waiting = waiting.then(_decay(qubit, move.at_ns, at_ns, is_stored=True))
    else:
        is_stored = qubit.is_stored and move.at_ns <= at_ns
        waiting = _decay(qubit, start_ns, at_ns, is_stored=is_stored)
    if attempts > 0:
        # Dephasing commutes with all of the above: it may come last.
        waiting = waiting.then(decay.dephased(qubit.profile.attempt_dephasing, attempts))
    return waiting


def _matters(move: Move, profile: Profile) -> bool:
    """Whether before and after the move are not just one time of waiting."""
    return move.depolarising > 0.0 or profile.comm_t2_s is not None


def _decay(qubit: _Qubit, start_ns: int, end_ns: int, *, is_stored: bool) -> Decay:
    """Waiting from `start_ns` to `end_ns`, decoupled where the node does so."""
    profile, born_ns = qubit.profile, qubit.born_ns
    t1_s, t2_s = profile.decay_times_s(is_stored=is_stored)
    before_s, after_s = (start_ns - born_ns) * NS, (end_ns - born_ns) * NS
    waited = storage.waiting(profile.decay_law, t1_s, t2_s, before_s, after_s)
    spacing_ns = profile.decoupling_spacing_ns
    if spacing_ns is None:
        return waited
    return toggled(waited, t1_s, spacing_ns, start_ns - qubit.echo_ns, end_ns - qubit.echo_ns)


def _frame(qubit: _Qubit, at_ns: int) -> Frame:
    """What the pulses up to `at_ns` have done to a qubit."""
    return frame_after(qubit.profile.decoupling_axis, _pulses(qubit, at_ns))


def _pulses(qubit: _Qubit, at_ns: int) -> int:
    spacing_ns = qubit.profile.decoupling_spacing_ns
    return 0 if spacing_ns is None else pulses_by(at_ns - qubit.echo_ns, spacing_ns)


def _with_pulses(qubit: _Qubit, waiting: FloatArray, at_ns: int) -> FloatArray:
    """What waiting since the last touch does to a qubit as it is: `waiting`, and the pulses."""
    before, after = _frame(qubit, qubit.touched_ns), _frame(qubit, at_ns)
    return pauli_frame(*after) @ waiting @ pauli_frame(*before)


def _framed(tensor: FloatArray, axis: int, frame: Frame) -> FloatArray:
    """A state with the frame of one of its qubits undone."""
    return state.apply(tensor, axis, pauli_frame(*frame)) if frame.is_flipped else tensor


@lru_cache(maxsize=4096)
def _noisy_gate(name: str, angle: float, depolarising: float) -> FloatArray:
    transfer = gate_transfer(name, angle)
    if len(transfer) == 4:
        return channels.depolarising(depolarising) @ transfer
    return channels.two_qubit_depolarising(depolarising) @ transfer


@lru_cache(maxsize=256)
def _readout_effects(basis: Basis, f0: float, f1: float) -> FloatArray:
    """The POVM (2, 4) of reading one qubit."""
    return np.array([readout_effect(basis, bit, f0, f1) for bit in (0, 1)])


def _bell_effects(profile: Profile) -> FloatArray:
    """The POVM (4, 4, 4) of a Bell measurement, in the order of OUTCOMES."""
    return _bell_effects_of(
        profile.gate_2q_depolarising,
        profile.gate_1q_depolarising,
        profile.readout_f0,
        profile.readout_f1,
    )


@lru_cache(maxsize=256)
def _bell_effects_of(gate_2q: float, gate_1q: float, f0: float, f1: float) -> FloatArray:
    return bell_measurement(gate_2q, gate_1q, f0, f1).reshape(4, 4, 4)


def _reduced(first: _Qubit, second: _Qubit) -> FloatArray:
    """The (4, 4) of two qubits as they were last touched."""
    tensor, axis_a = first.group.tensor, first.axis
    if first.group is not second.group:
        far = _alone(second.group.tensor, second.axis)
        return _alone(tensor, axis_a)[:, np.newaxis] * far
    axis_b = second.axis
    kept = tensor[_only(tensor.ndim, axis_a, axis_b)]
    return kept if axis_a < axis_b else kept.T


def _alone(tensor: FloatArray, axis: int) -> FloatArray:
    """The state (4,) of one qubit."""
    return tensor[_only(tensor.ndim, axis, axis)]


@cache
def _only(qubits: int, axis_a: int, axis_b: int) -> tuple[slice | int, ...]:
    """The place of what concerns these axes alone, traced over all others."""
    return tuple(slice(None) if axis in (axis_a, axis_b) else 0 for axis in range(qubits))


def _choose(weights: list[float], uniform: float) -> int:
    """The place the draw falls on; never one that cannot happen."""
    if min(weights) <= state.IMPOSSIBLE:
        weights = [weight if weight > state.IMPOSSIBLE else 0.0 for weight in weights]
    left = uniform * sum(weights)
    last = 0
    for place, weight in enumerate(weights):
        if weight > 0.0:
            last = place
            if left < weight:
                break
            left -= weight
    return last


def _require_reach(first: _Qubit, second: _Qubit) -> None:
    """Two qubits of a star meet only if one of them is in the middle."""
    if first.profile.topology == "star" and first.is_stored and second.is_stored:
        raise RefusedError(
            ErrorCode.UNSUPPORTED,
            "both qubits are in storage; a two-qubit gate needs one on a communication qubit",
        )


def _require_size(qubits: int) -> None:
    if qubits > GROUP_QUBITS_MAX:
        raise RefusedError(
            ErrorCode.UNSUPPORTED,
            f"a joint state of {qubits} qubits; the emulation is exact up to {GROUP_QUBITS_MAX}",
        )
