"""Networks and figures the tests of the expectation share."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from qstack.cli.demo import expectation
from qstack.cli.demo.expectation import (
    expect_pairs,
)
from qstack.runtime.network_file import Network, load_packaged_network

SIGMAS = 4.9
DATA = Path(__file__).parents[1] / "data" / "oracles.json"
ORACLES = {case["id"]: case for case in json.loads(DATA.read_text("utf-8"))["cases"]}
PERFECT = {
    "visibility": 1.0,
    "dark_count_probability": 0.0,
    "t2_s": math.inf,
    "gate_1q_depolarising": 0.0,
    "gate_2q_depolarising": 0.0,
    "readout_f0": 1.0,
    "readout_f1": 1.0,
}


@cache
def metro() -> Network:
    return load_packaged_network("metro")


def with_profile(network: Network, **changes: Any) -> Network:
    nodes = {
        name: msgspec.structs.replace(
            node, profile=msgspec.structs.replace(node.profile, **changes)
        )
        for name, node in network.nodes.items()
    }
    return msgspec.structs.replace(network, nodes=nodes)


def with_repeater_memory(memory: int) -> Network:
    nodes = dict(metro().nodes)
    nodes["r1"] = msgspec.structs.replace(nodes["r1"], memory=memory)
    return msgspec.structs.replace(metro(), nodes=nodes)


@cache
def metro_pairs(seed: int = 1) -> expectation.PairExpectation:
    return expect_pairs(metro(), "alice", "bob", seed=seed)


def sigmas(value: float, se: float, other: float, other_se: float = 0.0) -> float:
    return abs(value - other) / math.hypot(se, other_se)
