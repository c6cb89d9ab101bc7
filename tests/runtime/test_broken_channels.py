"""A channel breaks between two nodes that live: both ends get PeerDown, and the service goes on."""

from collections.abc import Callable

import pytest
import trio

from qstack.transport import service as transport
from tests.runtime.programs import Measurer
from tests.runtime.running import packaged, run_folder
from tests.runtime.session_client import attached
from tests.runtime.together import Together, together

NEVER = 10_000  # pairs: more than any test waits for


async def work(daemons: Together, programs: dict[str, Measurer]) -> None:
    """alice and bob make pairs without end."""

    async def one(node: str) -> None:
        async with attached(daemons.prepared.session_socket(node)) as session:
            await session.run(programs[node], programs[node].first)

    async with trio.open_nursery() as nursery:
        for node in programs:
            nursery.start_soon(one, node)


def measurers() -> dict[str, Measurer]:
    return {
        "alice": Measurer("bob", NEVER, creates=True),
        "bob": Measurer("alice", NEVER, creates=False),
    }


def more_at_both(programs: dict[str, Measurer], pairs: int) -> Callable[[], bool]:
    """So many pairs more than now."""
    wanted = {node: len(program.outcomes) + pairs for node, program in programs.items()}
    return lambda: all(len(programs[node].outcomes) >= wanted[node] for node in wanted)


@pytest.mark.parametrize("by_first", [True, False])
async def test_pairs_come_again_whichever_channel_breaks(by_first: bool) -> None:
    with run_folder() as runs:
        async with together(packaged("metro"), runs) as daemons, trio.open_nursery() as nursery:
            programs = measurers()
            nursery.start_soon(work, daemons, programs)
            await daemons.fact("pairs come", more_at_both(programs, 3))
            boots = {name: node.node.boot_id for name, node in daemons.nodes.items()}
            for ends in (("alice", "r1"), ("r1", "r2"), ("alice", "bob"), ("bob", "r2")):
                first, second = ends if by_first else ends[::-1]
                await daemons.cut(first, second)
                said = f"the channel {min(ends)} - {max(ends)} broke"
                await daemons.fact(said, lambda said=said: any(said in s for s in daemons.said))
                await daemons.fact(f"pairs after {ends}", more_at_both(programs, 5))
            assert not [said for said in daemons.said if "is down" in said or "taken out" in said]
            for name, node in daemons.nodes.items():
                assert node.members == boots, name
            nursery.cancel_scope.cancel()


async def test_over_its_only_link_a_request_ends_at_both_ends_and_the_next_one_works() -> None:
    with run_folder() as runs:
        async with together(packaged("pair"), runs) as daemons:
            for _ in range(3):
                programs = measurers()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work, daemons, programs)
                    await daemons.fact("pairs come", more_at_both(programs, 2))
                    await daemons.cut("alice", "bob")
                    await daemons.fact(
                        "both are told",
                        lambda programs=programs: all(p.is_finished for p in programs.values()),
                    )
                    nursery.cancel_scope.cancel()
                for program in programs.values():
                    failed = [m for m in program.log if isinstance(m, transport.Failed)]
                    assert [m.error for m in failed] == ["PEER_DOWN"]
                await daemons.fact("the channel", lambda: daemons.channel_is_up("alice", "bob"))
            assert not any(daemons.nodes[name].node.machines["physical"].summary()["qubits"]
                           for name in ("alice", "bob"))  # fmt: skip
