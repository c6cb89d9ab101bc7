"""The values an application may give, judged before anything is sent.

A node ends a session that sends what its message types forbid; so each value is checked here
against the same bounds. All functions raise `BadRequest`.
"""

import math
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, cast, get_args

from qstack.api.errors import BadRequest
from qstack.physical.service import Rotation
from qstack.transport.service import MESSAGE_BYTES_MAX
from qstack.wire.message import Basis, BasisChoice, BasisProbabilities

DEADLINE_NS: Final = 10**10
"""The default deadline of a call: 10 s of network time."""
SPAN_NS_MAX: Final = 2**62
PAIRS_MAX: Final = 10**6  # in one call; the transport layer's limit
PRIORITY_MAX: Final = 7
PORT_MAX: Final = 65_535
ANGLE_MAX: Final = 1000.0  # radians
SUM_TOLERANCE: Final = 1e-6  # numbers of single precision sum to 1 no better
BASES: Final = get_args(Basis)
Kind = Literal["keep", "measure"]
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


def span_ns(value: int) -> int:
    """A span of network time."""
    span = _whole(value, "a span of network time")
    if not 1 <= span <= SPAN_NS_MAX:
        raise BadRequest(f"a span of network time is 1 ns to 2**62 ns, not {span}")
    return span


def deadline_ns(value: int | None) -> int | None:
    """A deadline, counted from now; None waits for ever."""
    if value is None:
        return None
    if _whole(value, "a deadline") <= 0:
        raise BadRequest(f"deadline in the past: {value} ns from now")
    return span_ns(value)


def port(value: int) -> int:
    """A port of a socket."""
    return _within(value, "a port", 0, PORT_MAX)


def number(value: int) -> int:
    """How many pairs."""
    return _within(value, "the number of pairs of one call", 1, PAIRS_MAX)


def priority(value: int) -> int:
    """A request's priority."""
    return _within(value, "a priority", 0, PRIORITY_MAX)


def basis(value: str) -> Basis:
    """A measurement basis."""
    if value not in BASES:
        raise BadRequest(f"a basis is one of {', '.join(BASES)}, not {value!r}")
    return cast("Basis", value)


def basis_choice(value: str | Mapping[str, float]) -> BasisChoice:
    """One basis for all pairs, or the probability of each: `{"Z": 0.9, "X": 0.1}`."""
    if isinstance(value, str):
        return basis(value)
    if not isinstance(value, Mapping):
        raise BadRequest(f"a basis is a letter, or the probabilities of letters, not {value!r}")
    chances = [_chance(basis(letter), chance) for letter, chance in value.items()]
    total = math.fsum(chances)
    if not math.isclose(total, 1.0, abs_tol=SUM_TOLERANCE):
        raise BadRequest(f"the probabilities of bases sum to 1, not {total:g}")
    given = {letter: chance / total for letter, chance in zip(value, chances, strict=True)}
    return BasisProbabilities(*(given.get(letter, 0.0) for letter in BASES))


def _chance(letter: str, value: float) -> float:
    try:
        chance = float(value)
    except (TypeError, ValueError):
        chance = math.nan
    if not 0.0 <= chance <= 1.0:
        raise BadRequest(f"the probability of {letter} is 0 to 1, not {value!r}")
    return chance


def kind(value: str) -> Kind:
    """What becomes of pairs."""
    if value not in get_args(Kind):
        raise BadRequest(f"pairs are of kind {' or '.join(get_args(Kind))}, not {value!r}")
    return cast("Kind", value)


def fidelity(value: float) -> float:
    """A fidelity asked for."""
    if not 0.0 <= value <= 1.0:
        raise BadRequest(f"a fidelity is 0 to 1, not {value}")
    return float(value)


def angle(value: float) -> float:
    """An angle in radians."""
    if not math.isfinite(value) or abs(value) > ANGLE_MAX:
        raise BadRequest(f"an angle is at most {ANGLE_MAX:g} radians, not {value}")
    return float(value)


def rotation(value: Iterable[float]) -> Rotation:
    """Three angles in radians: about X, then Y, then X again."""
    try:
        x1_rad, y_rad, x2_rad = (angle(each) for each in value)
    except (TypeError, ValueError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(f"a rotation is three angles, not {value!r}") from error
    return Rotation(x1_rad, y_rad, x2_rad)


def remote(value: str) -> str:
    """The name of a node."""
    if not _NAME.fullmatch(value):
        raise BadRequest(f"a node's name is a-z, then a-z, 0-9 and '-', not {value!r}")
    return value


def data(value: bytes | bytearray | memoryview) -> bytes:
    """A message."""
    if len(value) > MESSAGE_BYTES_MAX:
        raise BadRequest(f"a message has at most {MESSAGE_BYTES_MAX} bytes, not {len(value)}")
    return bytes(value)


def _within(value: int, what: str, least: int, most: int) -> int:
    whole = _whole(value, what)
    if not least <= whole <= most:
        raise BadRequest(f"{what} is {least} to {most}, not {whole}")
    return whole


def _whole(value: int, what: str) -> int:
    """A whole number, also one of numpy's."""
    if isinstance(value, bool):
        raise BadRequest(f"{what} is a whole number, not {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise BadRequest(f"{what} is a whole number, not {value!r}") from None
