"""What could be had to another node: the answer to RouteQuery, from the link states alone.

Equal link states give equal answers at both ends to a question about the way from one of them.

The error rates are those of the predicted pair (`prediction`) without the tail's correction gate,
as outcomes are corrected by flips; each end's outcome is flipped as often as its readout errs. A
link that only measures advertises the error rates of what it measures: there nothing is added.
"""

from qstack.network import service
from qstack.network.prediction import Chain, Plan, best_fidelity, plan, predicted_pair, probability
from qstack.network.routing import States, best_path, chain_of

RATE_MAX_HZ = 1e12


def route_answer(
    states: States, here: str, query: service.RouteQuery, cutoff_ns: int | None
) -> service.RouteAnswer:
    """The best path of the kind asked for, and what it would give."""
    source, target = (query.remote, here) if query.from_remote else (here, query.remote)
    path = best_path(states, source, target, query.kind)
    if path is None and query.kind == "keep":
        path = best_path(states, source, target, "measure")
    chain = chain_of(states, path) if path is not None else None
    if path is None or chain is None:
        return service.RouteAnswer(call=query.call, path=[], fidelity=0.0, rate_hz=0.0)
    found = plan(chain, query.min_fidelity, cutoff_ns)
    error_x, error_z = (0.5, 0.5) if found is None else error_rates(chain, found)
    return service.RouteAnswer(
        call=query.call,
        path=list(path),
        fidelity=probability(best_fidelity(chain, cutoff_ns)),
        rate_hz=0.0 if found is None else min(found.rate_hz, RATE_MAX_HZ),
        error_x=probability(error_x),
        error_z=probability(error_z),
    )


def error_rates(chain: Chain, run: Plan) -> tuple[float, float]:
    """How often the ends of a pair read otherwise than phi+ in X, and in Z."""
    (_, z_only, x_only, both), _ = predicted_pair(
        chain, run.cutoff_ns, run.link_min_fidelity, is_corrected=False
    )
    rates = z_only + both, x_only + both
    if chain.is_read_at_once:
        return rates
    kept = 1.0
    for node in (chain.nodes[0], chain.nodes[-1]):
        kept *= 1.0 - 2.0 * node.swap_flip  # what readout leaves of a correlation
    in_x, in_z = ((1.0 - kept * (1.0 - 2.0 * rate)) / 2.0 for rate in rates)
    return in_x, in_z
