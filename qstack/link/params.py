"""Numbers of the link layer."""

from typing import Final, Literal

Weight = int | Literal["strict"]
"""The share of a link a priority gets; "strict": before all that have shares."""

# Specification: changing these breaks interoperability.
START_ALLOWANCE_NS: Final = 40_000  # added to the round trip: one turn of processing at each end
NUMBER_MAX: Final = 10**6  # pairs of one request
CHOICE_NS: Final = 50_000_000  # both ends look at their queue again at multiples of this
SLOTS_PART_MAX: Final = 8_192  # detected slots in one message: 32 KiB, half of a control frame
FAIR_PAIRS: Final = 64  # of one measure batch, where requests have shares of the link
AGE_GRACE_NS: Final = 10_000_000  # longer than a herald, a move and a readout take
ANSWER_WITHIN_NS: Final = 10_000_000  # an acknowledgement waits so long for a message to ride on
RESEND_TRIPS: Final = 3  # round trips until what is answered at once is said again
WINDOW: Final = 128  # messages said and not yet acknowledged
LOOKS: Final = (48, 96, 192, 384, 768)  # rounds of a window after which it is judged
FALSE_ALARM: Final = 1e-6  # at most, that an honest option alarms in a window
OUTCOMES_MAX: Final = 64  # rounds in one message
MEASURED_OUTCOMES_MAX: Final = 4096  # rounds of measured pairs in one message

# Implementation limits.
MEMORY_SHORT_NS: Final = 10**9  # memory full for so long is worth a message
MAINTENANCE_AHEAD_NS: Final = 50_000_000  # until a window begins, beside four round trips
MAINTENANCE_AHEAD_MAX_NS: Final = 10**10  # a peer's window is not further ahead
MAINTENANCE_RETRY_NS: Final = 10**9  # until another window is named, where one was missed
MAINTENANCE_SLACK_NS: Final = 10_000_000  # of a window: devices answer what was stopped
ROUND_TRIP_UNKNOWN_NS: Final = 1_000_000  # until the device has said how long the link is
RESEND_MAX_NS: Final = 500_000_000  # between two attempts
RESEND_MESSAGES_MAX: Final = 16  # said again in one attempt
ATTEMPTS_MAX: Final = 16  # without an answer: 6 s on a link of 50 us
REQUESTS_MAX: Final = 256  # open per link: a bound on what a peer can make us remember
START_AHEAD_MAX_NS: Final = 10**9  # a peer's start is a round trip ahead, not longer than this
SLOTS_AHEAD_MAX: Final = 2**19  # of one end, to be compared: 4 MiB; 50 ms of the fastest receiver
MEASURED_MAX: Final = 65_536  # pairs in one indication: 40 KiB of packed bits and bases
PAIR_HISTORY_MAX: Final = 4096  # announced pairs a late Expire is still attributed to
OUTCOMES_EACH: Final = 32  # rounds that wait before they are told
OUTCOMES_WAIT_NS: Final = 10**9  # how long they wait at most: idle housekeeping
MEASURED_ROUNDS_EACH: Final = 4096  # of measured pairs, before they are told: 34 KiB
MEASURED_ROUNDS_MAX: Final = 2**16  # of one end, whose far half is not known
ROUNDS_OPEN_MAX: Final = 1024  # of one end, whose far half is not known
ALARM_HOLD_NS: Final = 600 * 10**9  # without a round, then the option is offered as promised again
LATENESS_MAX: Final = 100  # predicted time over time left from which a request is refused at once
