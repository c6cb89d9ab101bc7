"""What the demo found, as it is printed: the contract of `qstack demo --json`, and the checks."""

from math import sqrt
from typing import Final

from msgspec import Struct

SIGMAS: Final = 4.9
"""How many standard errors may lie between figures that should agree: 1e-6 of runs exceed it."""


class ChannelLine(Struct, frozen=True):
    """One channel of a node."""

    peer: str
    group: str
    tls: str
    node: str


class Pairs(Struct, frozen=True, kw_only=True):
    """Act one. `fidelity` is raw; `fidelity_truth` what it would be with endless pairs.

    `sampling_se` is how far so many pairs stray from the truth: known from the true states, it does
    not shrink when outcomes happen to agree.
    """

    delivered: int
    discarded: int
    fidelity: float
    fidelity_low: float
    fidelity_high: float
    fidelity_se: float
    sampling_se: float
    fidelity_truth: float
    truth_se: float
    fidelity_predicted: float
    predicted_se: float
    network_s: float
    wall_s: float
    rate_hz: float
    direct_hz: float


class Teleport(Struct, frozen=True, kw_only=True):
    """Act two."""

    count: int
    fidelity: float
    fidelity_se: float
    predicted: float
    predicted_se: float
    ideal: float
    classical_bound: float
    network_s: float
    wall_s: float


class Recovery(Struct, frozen=True, kw_only=True):
    """Act three. Times are from the kill to the first new pair; `told` is what the asker heard."""

    killed: str | None
    killed_at_network_s: float
    told: str
    told_pairs: int
    recovered_s: float
    recovered_network_s: float


class Result(Struct, frozen=True, kw_only=True):
    """All of it. `failed` names the checks that did not hold; empty means exit status 0."""

    network: str
    processes: int
    channels: list[ChannelLine]
    clock: str
    seed: int
    reproducible: str
    origin: str
    network_s: float
    rounds: int
    projected: list[str]
    assumed: list[str]
    pairs: Pairs
    teleport: Teleport
    recovery: Recovery
    elapsed_s: float
    failed: list[str]


def checks(pairs: Pairs, wanted: int, teleport: Teleport, channels: list[ChannelLine]) -> list[str]:
    """What did not hold, a sentence each."""
    failed = []
    if pairs.delivered != wanted:
        failed.append(f"{pairs.delivered} of {wanted} pairs were measured in equal bases")
    truth_limit = SIGMAS * sqrt(pairs.truth_se**2 + pairs.predicted_se**2)
    if abs(pairs.fidelity_truth - pairs.fidelity_predicted) > truth_limit:
        failed.append("the true fidelity is not the predicted one")
    if abs(pairs.fidelity - pairs.fidelity_truth) > SIGMAS * pairs.sampling_se:
        failed.append("the measured fidelity is not the true one")
    teleport_limit = SIGMAS * sqrt(teleport.fidelity_se**2 + teleport.predicted_se**2)
    if abs(teleport.fidelity - teleport.predicted) > teleport_limit:
        failed.append("the fidelity of teleportation is not the predicted one")
    if any(c.group != "X25519MLKEM768" or c.tls != "TLSv1.3" for c in channels):
        failed.append("a channel is not TLS 1.3 with X25519MLKEM768")
    return failed
