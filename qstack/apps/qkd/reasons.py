"""Why a run ends without a key: names that are compared, sentences that are read.

No sentence and no detail ever holds a bit of key, of a pad or of an unpublished outcome.
"""

from enum import Enum
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the registry."""

    number: int
    sentence: str


class Reason(Enum):
    """Every way a run can end without a key."""

    # The two ends do not fit.
    PARAMETERS = Row(1, "the two ends were started with different parameters")
    IDENTITY = Row(2, "the peer is not the one this run is with")
    SECRET = Row(3, "the pre-shared secret cannot be used")
    # What arrived is not what was sent.
    AUTHENTICATION = Row(
        10, "a message is not from the peer: changed on the way, or another pre-shared secret"
    )
    OUT_OF_ORDER = Row(11, "a message is missing, repeated or out of order")
    WRONG_SESSION = Row(12, "a message belongs to another run")
    MALFORMED = Row(13, "a message is not what its type says")
    OUT_OF_STATE = Row(14, "a message or event is not allowed in this phase")
    LIMIT = Row(15, "more was asked for than a run allows")
    TRANSCRIPT = Row(16, "the two ends did not see the same conversation")
    # The pairs are not good enough.
    TOO_FEW_PAIRS = Row(20, "too few pairs were measured in equal bases")
    BIAS = Row(21, "bases or outcomes are not as random as they must be")
    ERROR_RATE = Row(22, "too many errors for any length declared")
    LEAK = Row(23, "more parities would be disclosed than any length declared allows")
    RECONCILIATION = Row(24, "the parities of the peer contradict one another")
    VERIFICATION = Row(25, "the corrected bits still differ")
    AMPLIFICATION = Row(26, "privacy amplification could not be done exactly")
    NO_PAIRS = Row(27, "the pairs could not be measured")
    PLAN = Row(28, "no number of pairs gives such a key")
    # Somebody left.
    PEER_ABORTED = Row(30, "the peer ended the run")
    PEER_GONE = Row(31, "the connection to the peer ended")
    TIMEOUT = Row(32, "the deadline passed")
    INTERRUPTED = Row(33, "it was stopped")
    STORAGE = Row(34, "the key could not be stored")
    NODE = Row(35, "the own node refuses, or has gone")
    INTERNAL = Row(40, "an error of this program")

    @property
    def number(self) -> int:
        """The registry number."""
        return self.value.number

    @property
    def sentence(self) -> str:
        """What it means, for the person who reads it."""
        return self.value.sentence


class AbortError(Exception):
    """The run must end, for this reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.sentence}{': ' + detail if detail else ''}")
        self.reason = reason
        self.detail = detail
