"""What error rates to plan a run for, if nobody says: those the network layer predicts.

Both ends ask their own node about the way of the one that makes the pairs, and are told the same
while they know the same of the network; nothing measured goes in, as `planning` demands.

The headroom
A plan tolerates one of the declared rates in both bases. It is the least one that leaves room above
the prediction for two things:
1. Chance: `SPREAD` standard deviations of the share of errors in the k test bits and the n key bits
   of that very plan. With 3, one run in some 700 has more errors in a basis than it was planned
   for, and as the next rate is declared as well its key is shorter, not lost. Another standard
   deviation would cost every run pairs, and save such a run a second one at most.
2. The model: `MODEL` of the predicted rate. The prediction is exact for a photon-pair link; over
   three links, whose pairs wait for one another, it is a few hundredths of it too low (see the
   network layer's README, "Not predicted").
As declared rates are one or more percent apart, small differences do not show in the plan.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

from qstack.api.node import Node
from qstack.apps.qkd.parameters import TOLERATED_ERRORS, Parameters, ParametersError
from qstack.apps.qkd.planning import parameters_for

SPREAD: Final = 3.0
MODEL: Final = 0.1
LEAST_FIDELITY: Final = 1.0 - 2.0 * TOLERATED_ERRORS[-1]
ASK_AGAIN_NS: Final = 20_000_000
ASK_MAX: Final = 50  # link states travel, also after a process came back: a second of network time


class NoRouteError(Exception):
    """No pairs can be had that are good enough for a key; the text says why."""


@dataclass(frozen=True)
class Forecast:
    """Predicted error rates of measured pairs, over `path`, at `rate_hz`."""

    path: tuple[str, ...]
    error_x: float
    error_z: float
    rate_hz: float

    def __str__(self) -> str:
        return (
            f"error rates {self.error_x:.4f} in X and {self.error_z:.4f} in Z"
            f" over {'-'.join(self.path)}, {self.rate_hz:.3g} pairs/s"
        )


async def forecast(node: Node, remote: str) -> Forecast:
    """What the network layer predicts of the pairs of a run with `remote`. Raises `NoRouteError`.

    Waits for a route, for a second of network time.
    """
    for asked in range(ASK_MAX):
        if asked:
            await node.sleep(ASK_AGAIN_NS)
        route = await node.route(
            remote, kind="measure", min_fidelity=LEAST_FIDELITY, from_remote=remote < node.name
        )
        if route.path:
            break
    else:
        raise NoRouteError(f"no route to {remote}")
    if not route.rate_hz:
        raise NoRouteError(
            f"the best fidelity over {'-'.join(route.path)} is {route.fidelity:.4f};"
            f" a key needs {LEAST_FIDELITY:.2f}"
        )
    return Forecast(route.path, route.error_x, route.error_z, route.rate_hz)


@dataclass(frozen=True)
class Plan:
    """Parameters, the error rate they are for, and what that follows from, unless it was given."""

    parameters: Parameters
    error_rate: float
    forecast: Forecast | None = None

    @property
    def origin(self) -> str:
        """Where the error rate comes from, in words."""
        if self.forecast is None:
            return "as given"
        return f"predicted by the network layer: {self.forecast}"


def plan_given(bits: int, error_rate: float) -> Plan:
    """A plan for an error rate somebody has said. Raises `ParametersError`."""
    return Plan(parameters_for(bits, error_rate=error_rate), error_rate)


def plan_predicted(bits: int, expected: Forecast) -> Plan:
    """A plan for `bits` or more with headroom over what is predicted.

    Raises `ParametersError` if no declared rate leaves room, or no run gives so many bits.
    """
    least = max(expected.error_x, expected.error_z)
    failure = ParametersError(
        f"{expected}: with headroom that is more than the {TOLERATED_ERRORS[-1]:g} a key tolerates"
    )
    for rate in TOLERATED_ERRORS:
        if rate < least:
            continue
        try:
            parameters = parameters_for(bits, error_rate=rate)
        except ParametersError as error:
            failure = error  # more errors need more pairs still
            break
        if _has_room(expected.error_x, parameters.k, rate) and _has_room(
            expected.error_z, parameters.n, rate
        ):
            return Plan(parameters, rate, expected)
    raise failure


def _has_room(predicted: float, bits: int, rate: float) -> bool:
    """Whether a plan for `rate` leaves the headroom above a predicted one, judged on `bits`."""
    likely = (1.0 + MODEL) * predicted
    return likely + SPREAD * sqrt(likely * (1.0 - likely) / bits) <= rate
