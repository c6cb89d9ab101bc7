"""Remote state preparation for applications: the far end has what the outcome here says."""

from typing import Any

import numpy as np
import pytest

from qstack.physical import service as physical
from qstack.physical.rotations import axes
from qstack.transport import service as transport
from qstack.wire.packed import BASES
from tests.runtime.scripts import SECOND, App, WatchedNetwork, epr

AXES = np.eye(3)
Y_TO_X = physical.Rotation(0.0, np.pi / 2.0, 0.0)
"""Turns about Y: Z is then read along -X, and X along Z."""
X_TO_Y = physical.Rotation(np.pi / 2.0, 0.0, 0.0)
"""Turns about X: Z is then read along Y, and Y along -Z."""


def directions(prepared: list[transport.PairPrepared], rotation: Any) -> dict[Any, Any]:
    """Where each far qubit points if the pair was phi+, by pair: y is mirrored."""
    read = axes(rotation)
    mirror = np.array([1.0, -1.0, 1.0])
    return {
        each.pair: (1 - 2 * each.outcome) * mirror * read[BASES.index(each.basis)]
        for each in prepared
    }


@pytest.mark.parametrize(
    ("name", "number", "basis", "rotation"),
    [
        ("pair", 30, "Y", None),
        ("pair", 30, "Z", Y_TO_X),
        ("metro", 100, "Z", X_TO_Y),  # over several links: swaps are corrected
    ],
)
def test_the_far_qubit_points_where_the_outcome_says(
    name: str, number: int, basis: Any, rotation: Any
) -> None:
    net = WatchedNetwork(name, 7)
    net.settle()
    axis = int(np.argmax(np.abs(axes(rotation)[BASES.index(basis)])))
    how: dict[str, Any] = {"basis": basis, "is_prepare": True, "rotation": rotation}
    asked: dict[str, Any] = {"within_ns": 1000 * SECOND}
    alice = App(net, "alice", epr(5, "bob", number, is_creator=True, **how, **asked))
    bob = App(
        net,
        "bob",
        epr(5, "alice", number, is_creator=False, read=lambda _: BASES[axis], **asked),
    )
    net.settle(10**6)
    prepared, kept = alice.all(transport.PairPrepared), bob.all(transport.PairDelivered)
    assert len(prepared) == len(kept) == number
    expected = directions(prepared, rotation)
    outcomes = {each.call - 10: each.outcome for each in bob.all(physical.Measured)}
    agree = sum(
        (1 - 2 * outcomes[place]) * expected[pair.pair] @ AXES[axis] > 0.0
        for place, pair in enumerate(kept)
    )
    # Pairs that said nothing would agree so often with a probability of 5e-7.
    assert agree >= (28 if name == "pair" else 75), agree
    net.check_calls()
    net.end_everything()
    net.check_empty()
