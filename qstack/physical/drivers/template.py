"""A driver to begin from: copy it, and put your hardware where the comments say HARDWARE.

It works as it is. Its "hardware" is a toy: qubits are Pauli vectors, heralds are drawn with the
probability that the profile of the node gives, and the far end of a link is imagined. So
`qstack device check qstack.physical.drivers.template:TemplateDevice` passes, and goes on passing
while you replace one method after the other.

What you have to know (all of it is in docs/drivers.md):
1. Time is `at_ns`, in whole nanoseconds of network time. You never read a clock or sleep: `say`
   a message at a time, or ask to be woken.
2. Attempts are not stepped. You are told when to begin, and say when something came of it.
3. Raise `LocalError` for what cannot be done; it must then have changed nothing.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from qstack.errors import ErrorCode, LocalError
from qstack.physical.device import Generate, MeasuredReply
from qstack.physical.drivers.driver import Driver
from qstack.physical.drivers.setup import Setup
from qstack.physical.params import CHUNK_PAIRS_MAX, NEVER_NS
from qstack.physical.service import GateName
from qstack.quantum.gates import gate_transfer
from qstack.quantum.measurement import readout_effect
from qstack.wire.message import Basis
from qstack.wire.packed import Bits, Codes, Slots, pack_bits

if TYPE_CHECKING:
    from qstack.quantum.pauli import FloatArray

GAP_CYCLES_MAX: Final = 2**46  # more cycles than any run has: the sum of many still fits


class TemplateDevice(Driver):
    """One node's device. The base class keeps the books, refuses wrong use and times answers."""

    emits = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._states: dict[bytes, FloatArray] = {}  # the toy: (1, <X>, <Y>, <Z>) of each qubit
        self._heralds = dict.fromkeys(self.links, 0)
        self._parts: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self._left: dict[int, int] = {}

    def began(self, now: int) -> None:
        """HARDWARE: bring it into a known state. What was there before `now` is forgotten."""
        del now
        self._states.clear()
        self._parts.clear()
        self._left.clear()

    # --- attempts: entanglement with the node at the other end of a link --------------------------

    def start(self, batch: Generate) -> None:
        """HARDWARE: begin to attempt on `batch.link`, in every cycle from `first_cycle` on."""
        if not self.links[batch.link].is_heralded:
            raise LocalError(ErrorCode.UNSUPPORTED, "this device has no receiver for photon pairs")
        if batch.basis == "given":
            # A device that can read each pair in a basis of its own asks for them: BasesWanted.
            raise LocalError(ErrorCode.UNSUPPORTED, "this device reads a batch in one basis")
        self._left[batch.batch] = batch.pairs
        self._draw(batch, batch.first_cycle)

    def _draw(self, batch: Generate, first_cycle: int) -> None:
        """The toy: in which cycles the next attempts succeed. The device is woken at the last."""
        probability = self._probability(batch)
        count = min(self._left[batch.batch], CHUNK_PAIRS_MAX)
        gaps = np.minimum(self.setup.rng.geometric(probability, count), GAP_CYCLES_MAX)
        self._parts[batch.batch] = cycles = first_cycle - 1 + np.cumsum(gaps)
        last_ns = self._emission_ns(batch, int(cycles[-1]))
        if last_ns < NEVER_NS:
            self.wake(last_ns, batch)

    def woken(self, batch: Generate, at_ns: int) -> None:
        """HARDWARE: the station has said that attempts succeeded, the last one at `at_ns`."""
        cycles = self._parts.pop(batch.batch)
        due_ns = at_ns + self.back_ns(batch.link)
        if batch.kind == "measure":
            self._left[batch.batch] -= len(cycles)
            is_last = not self._left[batch.batch]
            self._say_pairs(batch, len(cycles), at_ns, is_last=is_last)
            if is_last:
                del self.batches[batch.batch]
            else:
                self._draw(batch, int(cycles[-1]) + 1)
            return
        assert batch.qubit is not None, "the base sees to it"
        self._states[batch.qubit] = np.array([1.0, 0.0, 0.0, 0.0])  # half of a Bell pair
        self.herald(
            batch,
            sequence=self._next_heralds(batch.link, 1),
            cycle=int(cycles[-1]),
            bits=(1, int(self.setup.rng.integers(2))),  # psi+ or psi-: which detectors clicked
            emitted_at_ns=at_ns,
            due_ns=due_ns,
        )

    def stop(self, batch: Generate, reason: str, at_ns: int) -> None:
        """HARDWARE: stop attempting. What was emitted before `at_ns` still counts."""
        emitted = [
            cycle
            for cycle in self._parts.pop(batch.batch, np.zeros(0, dtype=np.int64)).tolist()
            if self._emission_ns(batch, cycle) < at_ns
        ]
        if batch.kind == "measure":
            self._say_pairs(batch, len(emitted), at_ns, is_last=True)
            return
        cycle_ns = self._cycle_ns(batch)
        first_ns = self._emission_ns(batch, batch.first_cycle)
        attempts = max(0, -((first_ns - at_ns) // cycle_ns))
        self.ended(batch, reason, at_ns, attempts=attempts)

    # --- attempts that a station with a name heralds (`template_station.py`) ----------------------

    def emit(self, batch: Generate) -> None:
        """HARDWARE: begin to attempt. The toy has nothing to do: the station draws what comes."""
        if not self.links[batch.link].is_heralded:
            raise LocalError(ErrorCode.UNSUPPORTED, "this device has no receiver for photon pairs")

    def keep(self, batch: Generate, cycle: int) -> None:
        """HARDWARE: the attempt in `cycle` was heralded; from now on its qubit can be used."""
        del cycle
        assert batch.qubit is not None, "the base has found it by its name"
        self._states[batch.qubit] = np.array([1.0, 0.0, 0.0, 0.0])  # half of a Bell pair

    def read(self, batch: Generate, cycles: Slots, bases: Codes) -> Bits:
        """HARDWARE: what was read in these cycles, in the batch's basis or in these `bases`."""
        del batch, bases
        return self._bits(len(cycles))

    # --- qubits -----------------------------------------------------------------------------------

    def initialise(self, qubit: bytes) -> None:
        """HARDWARE: bring the qubit to state 0. It may be there already."""
        self._states[qubit] = np.array([1.0, 0.0, 0.0, 2.0 * self.profile.init_fidelity - 1.0])

    def gate(self, name: GateName, angle: float, qubits: list[bytes]) -> None:
        """HARDWARE: apply a gate. Refuse those you do not have."""
        if len(qubits) > 1:
            raise LocalError(ErrorCode.UNSUPPORTED, f"this device has no gate {name}")
        kept = 1.0 - self.profile.gate_1q_depolarising
        (qubit,) = qubits
        rotated = gate_transfer(name, angle) @ self._states[qubit]
        self._states[qubit] = rotated * np.array([1.0, kept, kept, kept])

    def measure(self, qubit: bytes, basis: Basis) -> int:
        """HARDWARE: read the qubit, which is gone then."""
        effect = readout_effect(basis, 1, self.profile.readout_f0, self.profile.readout_f1)
        return int(self.setup.rng.random() < float(effect @ self._states.pop(qubit)))

    def bell_measure(self, first: bytes, second: bytes) -> tuple[int, int]:
        """HARDWARE: read two qubits in the Bell basis. They are gone then."""
        del self._states[first], self._states[second]
        x, z = self.setup.rng.integers(2, size=2).tolist()
        return x, z

    def release(self, qubit: bytes) -> None:
        """HARDWARE: nobody will use this qubit any more."""
        del self._states[qubit]

    # --- parts of the toy -------------------------------------------------------------------------

    def _say_pairs(self, batch: Generate, pairs: int, at_ns: int, *, is_last: bool) -> None:
        """Measured pairs, as packed bits, once the herald is back and the spin has been read."""
        back_ns = max(self.back_ns(batch.link), self.profile.readout_ns)
        reply = MeasuredReply(
            batch=batch.batch,
            first_herald_sequence=self._next_heralds(batch.link, pairs),
            pairs=pairs,
            outcomes=pack_bits(self._bits(pairs)),
            x_bits=pack_bits(np.ones(pairs, dtype=np.uint8)),
            z_bits=pack_bits(self._bits(pairs)),
            bases=b"",
            emitted_at_ns=at_ns if pairs else 0,
            is_last=is_last,
            calibration=self.calibration_of(batch),
        )
        self.say(at_ns + back_ns, reply)

    def _bits(self, count: int) -> Bits:
        return self.setup.rng.integers(0, 2, count, dtype=np.uint8)

    def _next_heralds(self, link: str, count: int) -> int:
        """Herald sequences count the successes of a link, alike at both ends."""
        first = self._heralds[link]
        self._heralds[link] += count
        return first

    def _probability(self, batch: Generate) -> float:
        profiles = self.setup.world.end_profiles(batch.link)
        return self.links[batch.link].herald(*profiles, batch.bright_state).probability

    def _cycle_ns(self, batch: Generate) -> int:
        profiles = self.setup.world.end_profiles(batch.link)
        return self.links[batch.link].cycle_ns(batch.kind, *profiles)

    def _emission_ns(self, batch: Generate, cycle: int) -> int:
        """When the photon of a cycle leaves: prepared and emitted, at the slower end."""
        profiles = self.setup.world.end_profiles(batch.link)
        return cycle * self._cycle_ns(batch) + max(p.t_init_ns + p.t_emit_ns for p in profiles)
