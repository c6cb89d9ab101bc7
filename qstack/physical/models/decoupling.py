"""Dynamical decoupling: pi pulses at equal distances while a qubit waits, and the frame they leave.

The train of Carr, Purcell, Meiboom and Gill (1954, 1958): pulse k comes (k - 1/2) spacings after
the qubit's initialisation or emission; about one axis, or about X and Y in turn (Viola and Knill
1999; Ryan and others 2010). T2 is that of the decoupled memory: what slow noise the pulses leave,
and their own errors, are in it. A pulse turns the qubit by a Pauli operator, so after an odd number
of them its Pauli frame is flipped. In the frame that turns with the pulses (the toggling frame)
dephasing is as it is without them, and relaxation to 0 goes to 1 after every other pulse.
"""

import math
from typing import Final, Literal, NamedTuple

from qstack.quantum.decay import Decay
from qstack.quantum.pauli import Basis

Axis = Literal["x", "y", "xy"]
"""About which axis the pulses turn; `xy`: the first about X, the second about Y, and so on."""

_NS: Final = 1e-9


class Frame(NamedTuple):
    """The Pauli operator X^x Z^z (but for a phase) between a qubit and what it stands for."""

    x_bit: int
    z_bit: int

    @property
    def is_flipped(self) -> bool:
        """Whether there is any."""
        return bool(self.x_bit or self.z_bit)


def pulses_by(age_ns: int, spacing_ns: int) -> int:
    """How many pulses there were up to an age, one at that very time included."""
    return (2 * age_ns + spacing_ns) // (2 * spacing_ns)


def frame_after(axis: Axis | None, pulses: int) -> Frame:
    """What so many pulses have done; none without an axis."""
    if axis is None:
        return Frame(0, 0)
    about_x = {"x": pulses, "y": 0, "xy": (pulses + 1) // 2}[axis]
    about_y = pulses - about_x
    return Frame((about_x + about_y) % 2, about_y % 2)


def is_reading_flipped(frame: Frame, basis: Basis) -> int:
    """1 if the frame turns outcome 0 of this basis into 1: they anticommute."""
    return {"X": frame.z_bit, "Y": frame.x_bit ^ frame.z_bit, "Z": frame.x_bit}[basis]


def toggled(waited: Decay, t1_s: float, spacing_ns: int, start_ns: int, end_ns: int) -> Decay:
    """What waiting between two ages does with the pulses, in the toggling frame.

    `waited` is the same without them. Relaxation goes towards 0 and 1 by turns:
    drift = sum over the times between pulses of (-1)^k (exp(-(t - end_k)/T1) - exp(-(t -
    begin_k)/T1)), a geometric series. Exact, so any number of touches gives the same.
    """
    if waited.drift == 0.0:
        return waited
    before = pulses_by(start_ns, spacing_ns)
    pulses = pulses_by(end_ns, spacing_ns) - before
    drift = (-1.0) ** pulses - waited.population
    if pulses:
        last_ns = end_ns - (2 * (before + pulses) - 1) * spacing_ns / 2.0
        each = math.exp(-spacing_ns * _NS / t1_s)
        series = (1.0 - (-each) ** pulses) / (1.0 + each)
        drift -= 2.0 * (-1.0) ** pulses * math.exp(-last_ns * _NS / t1_s) * series
    return waited._replace(drift=(-1.0) ** before * drift)
