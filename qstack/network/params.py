"""Numbers of the network layer."""

from typing import Final

from qstack.network.messages import HOPS_MAX

# Specification: changing these breaks interoperability.
NUMBER_MAX: Final = 10**6  # pairs of one request, as in the link layer
MAX_AGE_NS: Final = 60_000_000_000  # a link state older than this is forgotten
REFRESH_NS: Final = 20_000_000_000  # a node repeats its link state: three chances before MAX_AGE_NS
RELAY_MEMORY_MIN: Final = 2  # qubits an intermediate node needs: one a side

# Implementation limits.
NODES_MAX: Final = 4096  # link states held: a bound on what forged origins can make us remember
CIRCUITS_MAX: Final = 1024  # circuits through this node: some kilobytes each
CLOSED_CIRCUITS_MAX: Final = 1024  # circuits whose late messages are ignored, not answered
REQUESTS_MAX: Final = 4096  # requests open at this node as head, and as many as tail
PAIR_HISTORY_MAX: Final = 1024  # pairs of one circuit a late TRACK is still attributed to
HISTORY_NS: Final = 10_000_000_000  # then even the slowest TRACK has passed
EARLY_TRACKS_MAX: Final = 256  # TRACKs of one circuit ahead of their link pair
EARLY_NS: Final = 1_000_000_000  # a herald later than this behind the TRACK will not come
KEEP_REQUESTS_MAX: Final = 2  # link requests of a circuit: one at work, one being agreed on
CIRCUIT_IDLE_NS: Final = 10_000_000_000  # an unused circuit costs each hop memory of software only
PROMISE_SLACK: Final = 1e-3  # a circuit whose predicted fidelity falls by less than this stays
RETRY_NS: Final = 100_000_000  # between attempts to find a circuit for an open request
ISOLATED_NS: Final = 1_000_000_000  # nobody had a link with a remote for so long: it has gone
RESUME_NS: Final = 5_000_000_000  # how long a tail waits for a head that could come back
LATENESS_MAX: Final = 100  # predicted time over time left from which a request is refused at once
NEVER_NS: Final = 2**62  # a deadline from here on is none: no timer holds the clock for it
CUTOFF_MAX_NS: Final = 60_000_000_000  # default cutoff of memories that do not decay
CUTOFF_MIN_NS: Final = 10_000  # default cutoff is never shorter, nor than CUTOFF_DELAYS
CUTOFF_DELAYS: Final = 4  # in link delays: a pair is one delay old when it is heralded
SPARE: Final = 0.75  # of the fidelity above 1/2 kept when links are run faster than asked for
RUNS_MAX: Final = 12  # ways to run a circuit's links that are compared: 1 ms each over 3 links

assert MAX_AGE_NS > 2 * REFRESH_NS, "one lost refresh must not make a node vanish"
assert EARLY_NS < HISTORY_NS, "an early TRACK is answered while its pair is remembered"
assert HOPS_MAX >= 1, "a circuit has a link"
