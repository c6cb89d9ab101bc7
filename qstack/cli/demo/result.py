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


class Qkd(Struct, frozen=True, kw_only=True):
    """The key. `qber_predicted` is the closed form of the link; `message` was read under the key.

    `n` and `k` are the key and test bits of the bound, declared before the run; `sifted_bits` came.
    """

    pairs: int
    sifted_bits: int
    n: int
    k: int
    qber_z: float
    qber_x: float
    qber_predicted: float
    leak_bits: int
    efficiency: float
    key_bits: int
    bound: str
    eps_sec: float
    eps_cor: float
    keys_equal: bool
    message_read: bool
    origin: str
    note: str
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
    qkd: Qkd | None
    recovery: Recovery
    elapsed_s: float
    failed: list[str]


def checks(pairs: Pairs, wanted: int, teleport: Teleport, channels: list[ChannelLine]) -> list[str]:
    """What did not hold of pairs, teleportations and channels, a sentence each."""
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
    return failed + channel_checks(channels)


def key_checks(key: Qkd | None) -> list[str]:
    """What did not hold of the key, a sentence each; nothing where the network makes none."""
    if key is None:
        return []
    failed = []
    if not key.keys_equal:
        failed.append("the two ends have different keys")
    if not key.message_read:
        failed.append("the message under the key was not read")
    predicted = key.qber_predicted
    for basis, rate, bits in (("Z", key.qber_z, key.n), ("X", key.qber_x, key.k)):
        if abs(rate - predicted) > SIGMAS * sqrt(predicted * (1 - predicted) / bits):
            failed.append(f"the error rate in {basis} is not the predicted one")
    return failed


def channel_checks(channels: list[ChannelLine]) -> list[str]:
    """Whether every channel is protected as it should be."""
    failed = []
    if any(c.group != "X25519MLKEM768" or c.tls != "TLSv1.3" for c in channels):
        failed.append("a channel is not TLS 1.3 with X25519MLKEM768")
    return failed
