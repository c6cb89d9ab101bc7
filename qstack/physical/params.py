"""Numbers of the physical layer that no profile gives: our own limits, each with its reason."""

from typing import Final

RESULT_MIN_NS: Final = 1_000
"""No result of an operation arrives sooner: the clock's window needs room (CLOCK.md, rule 5)."""

READOUT_NS: Final = 50_000
"""How long a device takes to hand over what it has recorded of many pairs: the detections of a
receiver, or what was read in bases given for them. It reads blocks, not bits; and the clock's
window needs room (CLOCK.md, rule 3)."""

SHARE_NS: Final = 10_000_000
"""How long a link keeps the highest claim to a shared communication qubit: tens of attempts of a
metropolitan link, well below the coherence time of the memories a shared qubit is used with."""

GROUP_QUBITS_MAX: Final = 10
"""Qubits in one joint state: 4^10 numbers are 8 MiB. A gate that would join more is refused."""

SWITCH_HOLD_NS: Final = 100_000_000
"""How long attempts that go on keep a switch others wait for: ten settings of a slow one."""

SEGMENT_NS: Final = 100_000_000
"""Network time for which conditions that change slowly (clocks, alignment) are taken as constant:
a clock of 10^-9 goes 0.1 ns in it, well within a photon's width."""

CHUNK_PAIRS_MAX: Final = 65_536
"""Measured pairs in one reply: three times 8 KiB of packed bits, below the control frame limit."""

HERALDS_MAX: Final = 8_192
"""Measured pairs in one message of a named station: 32 KiB of cycle numbers and 2 KiB of bits,
below the control frame limit. A chunk of CHUNK_NS seldom has as many."""

CHUNK_NS: Final = 20_000_000
"""Network time one reply of measured pairs covers: how late a consumer learns of the first."""

SOURCE_SLOTS: Final = 1
"""Batches of a photon-pair link at once: an end has one receiver, set to one request's bases."""

DETECTIONS_MAX: Final = 8_192
"""Detections of one side in one reply: 32 KiB of slot numbers, below the control frame limit."""

SOURCE_CHUNK_MIN_NS: Final = 1_000_000
"""Network time one chunk of a pair source covers at least, however few pairs are wanted: a chunk
costs a turn at each end, and the ends hear of each other no sooner on a metropolitan link."""

DETECTIONS_MAX_HZ: Final = 1e7
"""Detections per second and side a pair link may have: a thousand replies a second."""

PASS_UPDATES: Final = 16
"""How often in a satellite's pass it is said anew what the rest of it will yield."""

PASS_TAIL_NS: Final = 100_000_000
"""How long after its last light a pass is over: detections are told, and compared by both ends."""

NEVER_NS: Final = 2**62
"""An event beyond this time (146 years) is not scheduled."""

BRIGHT_STATES: Final = (0.05, 0.1, 0.2, 0.3)
"""Bright-state populations on offer for single-click links, beside the profile's own: from
fidelity to rate (the set of the link-layer study of SIGCOMM 2019, with 0.2 between)."""

TOLD_LAYERS: Final = ("link", "network", "transport")
"""The layers of a node that are told of the device's coming and going."""

DRIFT_STEPS: Final = 16
"""Steps of the time between calibrations in which the goodness of heralds follows what drifts."""

DRIFT_STEPS_MAX: Final = 64
"""Steps after which a calibration that is overdue makes no difference to goodness any more."""

SYNC_PERIOD_NS: Final = 1_000_000_000
"""Network time from one comparison of two clocks to the next: idle housekeeping."""

SYNC_STARTS_NS: Final = (10_000_000, 100_000_000)
"""Network time from the first comparison to the second, and to the third: a clock's rate is known
after two, and ten times better with a base ten times longer. A link works from the second on."""

SYNC_CALM: Final = 8
"""Exchanges after which less uncertainty is told of: a change goes through the whole network."""

SYNC_WANDER_PS: Final = 1.0
"""What white noise of frequency is taken to make of an offset in a second: an Allan deviation of
10^-12 at 1 s, that of a rubidium clock."""

SYNC_RATE_WANDER_PPB: Final = 1e-4
"""How far a clock's rate is taken to wander in a second: temperature and ageing of an oven."""

SYNC_STEP_SIGMAS: Final = 8.0
"""A comparison this far from what was expected is a step of a clock: by chance once in 10^15."""

OFFSET_MAX_PS: Final = 1e15
"""No two clocks are further apart: what a far end's stamps say beyond it is refused."""
