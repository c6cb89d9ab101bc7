"""What a run is told, and what it answers: the surface of the machine.

Effects are carried out in their order, each before the next begins.
No event or effect with secret bits shows them in its `repr`.
"""

from typing import Final, Literal

from msgspec import Struct

from qstack.apps.qkd.bits import Bits
from qstack.apps.qkd.finite_key import BOUND
from qstack.apps.qkd.reasons import Reason

EMULATED: Final = "emulated"
REPRODUCIBLE: Final = "reproducible, not secret"


class Begin(Struct, frozen=True):
    """The message stream is open. First event."""


class Measured(Struct, frozen=True):
    """Every pair is measured: basis (0 Z, 1 X) and outcome of each, in the order both ends know.

    For pairs in phi+ equal outcomes are no errors, in both bases.
    """

    bases: Bits
    outcomes: Bits

    def __repr__(self) -> str:
        return f"Measured({self.bases.size} pairs)"


class Received(Struct, frozen=True):
    """A message of the stream."""

    data: bytes


class Closed(Struct, frozen=True):
    """The stream has ended, or will not be used any further."""

    reason: str


class Deadline(Struct, frozen=True):
    """The time of the run is up."""


class Failure(Struct, frozen=True):
    """The program cannot go on: an effect that could not be carried out, or who runs it stops."""

    reason: Reason
    detail: str


Event = Begin | Measured | Received | Closed | Deadline | Failure


class Figures(Struct, frozen=True, kw_only=True):
    """What is known so far; None where it is not yet.

    `leak_bits` are the parities disclosed, `tag_bits` the verification hashes; `efficiency` is
    leak_bits over the Shannon limit at `qber_z`.
    """

    pairs: int | None = None
    sifted_bits: int | None = None
    n: int | None = None
    k: int | None = None
    qber_x: float | None = None
    qber_z: float | None = None
    leak_bits: int | None = None
    tag_bits: int | None = None
    efficiency: float | None = None
    tolerated_error: float | None = None
    key_bits: int | None = None
    bound: str = BOUND
    eps_sec: float | None = None
    eps_cor: float | None = None
    eps_auth: float | None = None


class KeyMetadata(Struct, frozen=True, kw_only=True):
    """What goes with a key. `id` is equal at both ends and tells nothing about the key."""

    id: bytes
    network: str
    here: str
    peer: str
    role: Literal["alice", "bob"]
    attempt: int
    origin: str = EMULATED
    note: str = ""
    key_bits: int
    figures: Figures


class Send(Struct, frozen=True):
    """Send this on the stream, in order."""

    data: bytes

    def __repr__(self) -> str:
        return f"Send({len(self.data)} bytes)"


class Need(Struct, frozen=True):
    """Measure so many pairs, each in a basis that this end's node draws by `probabilities`.

    The bases drawn come back with `Measured`; until then they are nobody's business.
    """

    pairs: int
    probabilities: dict[str, float]


class Progress(Struct, frozen=True):
    """Where the run stands: name of the phase, part of the run that is done, figures so far."""

    phase: str
    fraction: float
    figures: Figures


class Key(Struct, frozen=True):
    """The key, packed, the first bit the highest of the first byte. The end of a good run."""

    secret: bytes
    metadata: KeyMetadata

    def __repr__(self) -> str:
        return f"Key({self.metadata.key_bits} bits, id {self.metadata.id.hex()})"


class Abort(Struct, frozen=True):
    """There will be no key. The end of any other run."""

    reason: Reason
    detail: str

    @property
    def text(self) -> str:
        """For a person."""
        return f"{self.reason.sentence}{': ' + self.detail if self.detail else ''}"


Effect = Send | Need | Progress | Key | Abort
