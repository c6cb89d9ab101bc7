"""Constants of the transport layer: what both ends must agree on, and what is ours to tune."""

from typing import Final

# Specification constants
PAIRS_PER_CALL_MAX: Final = 10**6  # one EprCreate or EprAccept; more is asked for by more calls
MESSAGE_WINDOW: Final = 64  # messages a receiver allows beyond those its application has taken
STREAM_REQUESTS_MAX: Final = 8  # of a qubit stream: those its sender has not said to be over

# Implementation limits
RETRY_NS: Final = 50_000_000  # first repetition of Correction, Lost, Skipped: 5 000 km and back
RETRY_NS_MAX: Final = 64 * RETRY_NS  # repetitions double up to this; channels are loss-free anyway
REOPEN_NS: Final = 1_000_000_000  # a lost channel that is still needed is asked for again
REOPEN_NS_MAX: Final = 64 * REOPEN_NS  # asking doubles up to this: a dead peer costs nothing
UNBOUNDED_NS: Final = 10**18  # deadline of a network request without one: 31 years
STREAM_REQUESTS_MAKING_MAX: Final = 2  # the next qubits wait for one of them, and share one
STREAM_REQUEST_PAIRS_MAX: Final = 64  # pairs one request of a stream asks for
STREAM_PRIORITY: Final = 0  # streams ask without privilege
SOCKETS_PER_SESSION_MAX: Final = 256  # an application that leaks sockets learns of it here
CALLS_PER_SESSION_MAX: Final = 1024  # bounds what waits for one application, its qubits included
PENDING_PER_PEER_MAX: Final = 256  # flows and streams of one peer that nobody has accepted yet
ECHO_PAIRS_MAX: Final = 64  # per peer: memory an unattended service may hold
ECHO_HOLD_NS: Final = 10_000_000_000  # an echo pair nobody asks about is freed
ECHO_REPLIES_MAX: Final = 1024  # repeated EchoRequests are answered from memory
DELIVERED_PAIRS_MAX: Final = 2048  # per session; of older pairs PairVoid is not told
DEPARTED_SESSIONS_MAX: Final = 64  # sessions that ended before physical listed their qubits
QUEUED_SENDS_MAX: Final = 1024  # per peer without a channel; only VoidPair is queued
CLOSED_IDS_MAX: Final = 2048  # flows and streams closed here of which a peer may still speak
RECENT_REQUESTS_MAX: Final = 2048  # ended network requests: repeated credits are known by them
CREDITS_OPEN_MAX: Final = 1024  # qubits a receiver may allow ahead; more breaks the protocol
FATES_MAX: Final = 4 * CREDITS_OPEN_MAX  # sequences whose fate can be said again
MESSAGES_UNACKNOWLEDGED_MAX: Final = 4 * MESSAGE_WINDOW  # kept for sending again
CREDIT_SHARE: Final = 4  # of a qubit stream: a quarter of the credits in use is said at once
CREDIT_STEP: Final = MESSAGE_WINDOW // 4  # messages taken or received before a Credit says so

assert CALLS_PER_SESSION_MAX <= CREDITS_OPEN_MAX
assert STREAM_REQUESTS_MAKING_MAX <= STREAM_REQUESTS_MAX
assert FATES_MAX >= 2 * CREDITS_OPEN_MAX
assert CREDIT_STEP <= MESSAGE_WINDOW <= MESSAGES_UNACKNOWLEDGED_MAX
