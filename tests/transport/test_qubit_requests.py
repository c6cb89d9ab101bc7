"""The network requests of a qubit stream: shared by the qubits that wait, and ended with them."""

import pytest

from qstack.ids import CircuitId, LinkPairId, PairId
from qstack.machine import OwnerGone
from qstack.transport import messages
from tests.transport.qubit_stream import Pair
from tests.transport.world import MS, Half


@pytest.fixture
def pair() -> Pair:
    return Pair()


def many(pair: Pair, qubits: int, *, within_ns: int | None = None) -> list[int]:
    """So many receives and sends at once; the calls of the sends."""
    for _ in range(qubits):
        pair.there.receive_qubit(pair.into)
    pair.world.run(10 * MS)
    return [pair.here.send_qubit(pair.out, f"q{n}", within_ns=within_ns) for n in range(qubits)]


def test_qubits_that_wait_together_share_requests(pair: Pair) -> None:
    many(pair, 100)
    pair.world.run()
    pair.expect_arrived([f"q{n}" for n in range(100)])
    numbers = [create.number for create in pair.world.network.created]
    assert numbers[:3] == [1, 1, 64]
    assert sum(numbers) == 100
    # the first eight credits are said as they come, later ones by the quarter
    assert len(pair.world.says(messages.Credit)) < 40
    pair.close()


def test_a_shared_request_without_enough_time_is_made_in_halves(pair: Pair) -> None:
    pair.world.network.pairs_max = 5
    sends = many(pair, 30)
    pair.world.run()
    assert all(pair.here.is_finished(call) for call in sends)
    numbers = [create.number for create in pair.world.network.created]
    assert numbers[:6] == [1, 1, 28, 14, 7, 3]
    pair.expect_arrived([f"q{n}" for n in range(30)])
    pair.close()


def test_no_time_for_a_single_qubit_gives_it_back(pair: Pair) -> None:
    pair.world.network.pairs_max = 0
    sends = many(pair, 6)
    pair.world.run()
    assert {pair.here.error(call) for call in sends} == {"NO_TIME"}
    assert len(pair.world.nodes["alice"].device.owned_by(pair.here.name)) == 6
    pair.close()


def test_who_has_more_time_than_its_request_is_asked_for_again(pair: Pair) -> None:
    pair.world.network.is_manual = True
    first, second = many(pair, 2, within_ns=50 * MS)
    pair.here.cancel(first)
    late = pair.here.send_qubit(pair.out, "late", within_ns=10**13)
    created = len(pair.world.network.created)
    pair.world.run(100 * MS)
    assert pair.here.error(second) == "TIMEOUT"
    for request in list(pair.world.network.requests.values())[:created]:
        pair.world.network.fail(request, "TIMEOUT")
    assert len(pair.world.network.created) == created + 1
    assert late not in pair.here.closings
    pair.world.network.make(list(pair.world.network.requests.values())[-1])
    pair.world.run()
    pair.expect_arrived(["late"])
    pair.close()


def test_pairs_of_a_shared_request_that_nobody_waits_for_are_skipped(pair: Pair) -> None:
    network = pair.world.network
    network.pair_ns = 5 * MS
    sends = many(pair, 12)
    pair.world.run(14 * MS)
    for call in sends[4:11]:
        pair.here.cancel(call)
    pair.world.run()
    kept = [f"q{n}" for n in (0, 1, 2, 3, 11)]
    assert [pair.here.is_finished(call) for call in sends].count(True) == 5
    pair.expect_arrived(kept)
    assert not pair.world.held("bob")
    pair.close()


def test_a_half_whose_twin_the_sender_never_got_is_freed_with_its_request(pair: Pair) -> None:
    network = pair.world.network
    network.is_manual = True
    (send,) = many(pair, 1)
    (request,) = network.requests.values()
    stray = Half("transport")
    pair_id = PairId(CircuitId(bytes(16)), 0, LinkPairId(b"stray-----------"))
    network.indicate(request, 1, pair_id, stray, 0, 0)  # and not at the head
    request.told[1].clear()
    assert len(pair.world.held("bob")) == 1
    network.make(request)
    pair.world.run()
    assert pair.here.is_finished(send)
    assert not pair.world.held("bob")
    assert [over.below for over in pair.world.says(messages.RequestsOver)] == [1]
    pair.close()


def test_a_receivers_network_layer_that_went_ends_what_waits_and_nothing_to_come(
    pair: Pair,
) -> None:
    """It had been told of requests to come as well: they are made by its successor."""
    pair.world.network.is_manual = True
    (lost,) = many(pair, 1)
    pair.world.event("bob", OwnerGone("network"))
    for request in list(pair.world.network.requests.values()):
        pair.world.network.fail(request, "PEER_DOWN")
    pair.world.run(50 * MS)
    assert pair.here.error(lost) == "PEER_DOWN"
    pair.world.network.is_manual = False
    pair.world.network.tail_first, pair.world.network.skew_ns = True, (0, 2 * MS)
    sends = [pair.here.send_qubit(pair.out, "again")]
    pair.world.run()
    assert all(pair.here.is_finished(call) for call in sends)
    pair.expect_arrived(["again"])
    pair.close()
