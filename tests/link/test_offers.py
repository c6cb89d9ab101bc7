"""Which options a link offers upward, and which one a request gets."""

from qstack.link.peer import Peer
from qstack.physical.service import GenerationOption, LinkCapability


def option(fidelity: float, probability: float, cycle_ns: int = 1000) -> GenerationOption:
    return GenerationOption(
        bright_state=None, probability=probability, cycle_ns=cycle_ns, measure_cycle_ns=cycle_ns,
        bell_probabilities=[fidelity, 1.0 - fidelity, 0.0, 0.0],
    )  # fmt: skip


def peer(*options: GenerationOption) -> Peer:
    capability = LinkCapability(
        link="a-b", peer="b", kinds=["keep"], pairing="heralds", options=list(options), slots=1,
        delay_ns=1,
    )  # fmt: skip
    return Peer("a", "b", bytes(8), capability=capability)


def test_options_that_another_beats_are_not_offered() -> None:
    best, fast = option(0.9, 0.001), option(0.7, 0.01)
    beaten = [option(0.8, 0.001), option(0.9, 0.0005), option(0.7, 0.01, 2000), option(0.6, 0.01)]
    offers = peer(*beaten, fast, best).offers
    assert [(o.bell_probabilities[0], o.rate_hz) for o in offers] == [(0.9, 1000.0), (0.7, 1e4)]


def test_a_request_gets_the_fastest_offer_that_keeps_its_fidelity() -> None:
    ways = [option(0.6, 0.01), option(0.7, 0.01), option(0.8, 0.002), option(0.9, 0.001)]
    link = peer(*ways)
    for asked in (0.0, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        good = [o for o in link.offers if o.bell_probabilities[0] >= asked]
        chosen = link.option_for(asked)
        assert chosen is not None
        assert chosen.bell_probabilities == max(good, key=lambda o: o.rate_hz).bell_probabilities
    assert link.option_for(0.95) is None
