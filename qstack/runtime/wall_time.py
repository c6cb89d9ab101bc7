"""Network time of the wall clock at one node: read from the fabric's, and kept by our own clock.

An answer to AskTime was true at some moment between question and answer: the middle is taken, and
half the round trip is how wrong that may be. What is known ages by DRIFT, so that a slow answer
replaces a quick one only when that has become worse. A clock that is behind would make every
message wait for as long as it is behind.
"""

import time
from typing import Final

DRIFT: Final = 1e-4  # two computers' clocks part by less than this: 100 ppm
ASK_TIMES: Final = 8  # in a row: one of them comes through quickly
ASK_EVERY_S: Final = (1.0, 10.0)  # after the first row, and from then on


class WallTime:
    """The network time now, at `scale` to wall time."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._zero_s = time.monotonic()  # the wall time of network time 0
        self._error_s = float("inf")
        self._read_s = self._zero_s
        self._asked_s = self._zero_s

    @property
    def now_ns(self) -> int:
        """Network time now."""
        return int((time.monotonic() - self._zero_s) * 1e9 * self._scale)

    def begin(self, at_ns: int) -> None:
        """A fabric has said its time, without being asked."""
        self._error_s = float("inf")
        self._set(time.monotonic(), at_ns)

    def asked(self) -> None:
        """The question leaves now."""
        self._asked_s = time.monotonic()

    def answered(self, at_ns: int) -> None:
        """The answer to the latest question is here."""
        now_s = time.monotonic()
        error_s = (now_s - self._asked_s) / 2
        if error_s < self._error_s + DRIFT * (now_s - self._read_s):
            self._error_s = error_s
            self._set(now_s - error_s, at_ns)

    def _set(self, read_s: float, at_ns: int) -> None:
        self._read_s = read_s
        self._zero_s = read_s - at_ns / 1e9 / self._scale
