"""Whether measured pairs of a whole stack agree as often as their link's exact state says."""

import math
from typing import Any

import numpy as np

from qstack.quantum.measurement import readout_effect
from qstack.runtime.network_file import Network
from qstack.transport import service as transport
from qstack.wire.packed import unpack_bits
from tests.runtime.scripts import SECOND, WatchedNetwork
from tests.runtime.test_virtual import both, failures, finish

PAIRS = 2000
SIGMAS = 5.1  # false alarm 4e-7


def outcomes(app: Any) -> Any:
    """All outcomes of an application's measured pairs, in order."""
    parts = app.all(transport.PairsMeasured)
    return np.concatenate([unpack_bits(part.outcomes, part.pairs) for part in parts])


def assert_measured_pairs_agree(network: Network, basis: Any) -> None:
    """PAIRS pairs of nodes a and b over their link of announced state psi+; the seed is fixed."""
    net = WatchedNetwork(network, 3)
    net.settle()
    apps = both(net, ("a", "b"), PAIRS, basis=basis, within_ns=1000 * SECOND)
    net.settle()
    assert not failures(apps[0])
    equal = outcomes(apps[0]) == outcomes(apps[1])
    assert len(equal) == PAIRS
    profile = network.nodes["a"].profile
    pair = network.links["a-b"].herald(profile, profile).state
    effects = [readout_effect(basis, bit, profile.readout_f0, profile.readout_f1) for bit in (0, 1)]
    chance = float(sum(effect @ pair @ effect for effect in effects))
    if basis == "Z":  # the frame of psi+ turns the far end's outcomes
        chance = 1.0 - chance
    sigma = math.sqrt(PAIRS * chance * (1 - chance))
    assert abs(int(equal.sum()) - PAIRS * chance) < SIGMAS * sigma
    finish(net)
