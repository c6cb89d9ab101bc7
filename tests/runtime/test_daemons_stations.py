"""A heralding station as a process: the trace, its death, and who may not speak with it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from qstack.channel.ca import Credentials
from qstack.channel.ends import ChannelRefused
from qstack.channel.hello import open_channel
from qstack.channel.identity import Identity
from qstack.errors import ErrorCode
from qstack.runtime.control_client import open_control
from qstack.runtime.launch import enrol
from qstack.runtime.network_file import Network
from qstack.runtime.peers import REGISTRY, node_hello
from qstack.runtime.session_messages import Attach, SessionError
from qstack.wire.codec import encode
from qstack.wire.frame import FrameReader, pack
from qstack.wire.message import BasisProbabilities
from qstack.wire.session import Hello
from tests.runtime.programs import daemon_chains, deliver, virtual_chains
from tests.runtime.running import RunningNetwork, network, run_folder
from tests.runtime.test_stations import with_station
from tests.runtime.together import Together, together

PAIRS = 12


@pytest.fixture(scope="module")
def source() -> Iterator[Path]:
    with run_folder() as folder:
        path = folder / "pair.toml"
        path.write_text(with_station())
        yield path


def pid_of_station(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> int:
    return report["stations"]["mid"]["process"]["pid"]


async def test_a_station_process_leaves_the_trace_of_the_virtual_runner(source: Path) -> None:
    """With measured pairs; the one that is killed has pairs to keep."""
    basis = BasisProbabilities(0.5, 0.0, 0.5)
    with network(source, "pair", "--seed", "1", "--apps", "2") as running:
        chains, programs = await daemon_chains(running, PAIRS, basis=basis)
        report = await running.report()
    assert sorted(chains) == ["alice", "bob", "mid"]
    assert chains == virtual_chains(source, 1, PAIRS, basis=basis)
    assert [len(program.outcomes) for program in programs.values()] == [PAIRS, PAIRS]
    station = report["stations"]["mid"]
    assert station["layers"]["physical"]["successes"] == PAIRS
    peers = sorted(channel["peer"] for channel in station["channels"])
    assert peers == [f"qstack://pair/{who}" for who in ("alice/node", "bob/node", "fabric/fabric")]


async def test_a_station_killed_at_a_stated_network_time_leaves_the_trace_of_the_virtual_runner(
    source: Path,
) -> None:
    at_ns = 100_000_000
    with network(source, "pair", "--seed", "1", "--apps", "2") as running:
        before = pid_of_station(await running.report())

        async def kill() -> None:
            async with open_control(running.control) as control:
                assert await control.hold(at_ns) == at_ns
                os.kill(before, signal.SIGKILL)
                await running.fact("it is gone", lambda r: "mid" not in r["fabric"]["stations"])
                await control.release()

        chains, programs = await daemon_chains(running, PAIRS, kill)
        assert pid_of_station(await running.report()) != before
    assert [len(program.outcomes) for program in programs.values()] == [PAIRS, PAIRS]
    assert chains == virtual_chains(source, 1, PAIRS, ("mid", at_ns))


@pytest.fixture(scope="module")
def wall() -> Iterator[RunningNetwork]:
    with run_folder() as folder:
        path = folder / "pair.toml"
        path.write_text(with_station("pair", ('clock = "lockstep"', 'clock = "wall"')))
        with network(path, "pair") as running:
            yield running


async def test_pairs_are_delivered_in_wall_time(wall: RunningNetwork) -> None:
    await deliver(wall, 5)
    await wall.fact("no qubit is left", lambda r: not any(r["fabric"]["qubits"].values()))


@pytest.mark.parametrize("name", ["mid", "alice"])
async def test_service_comes_back_after_a_kill_in_wall_time(
    wall: RunningNetwork, name: str
) -> None:
    report = await wall.report()
    participants = report["nodes"] | report["stations"]
    before = participants[name]["process"]["pid"]
    os.kill(before, signal.SIGKILL)

    def is_back(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> bool:
        again = (report["nodes"] | report["stations"]).get(name)
        return again is not None and again["process"]["pid"] != before

    await wall.fact("it is back", is_back, 20.0)
    await deliver(wall, 3)
    await wall.fact("no qubit is left", lambda r: not any(r["fabric"]["qubits"].values()))


# --- who may speak with whom ---------------------------------------------------------------------


async def refused(made: Together, at: str, credentials: Credentials, hello: Hello) -> str:
    """The error with which a participant refuses a channel."""
    address = made.prepared.network.address_of(at)
    role = made.prepared.network.role_of(at)
    stream = await trio.open_tcp_stream(address.host, address.port)
    with pytest.raises(ChannelRefused) as refusal:
        await open_channel(
            stream,
            credentials=credentials,
            server=False,
            expected=Identity("metro", at, role),
            hello=hello,
            registry=REGISTRY,
        )
    return refusal.value.code.name


def hello_of(made: Network, node: str, role: str) -> Hello:
    return node_hello(made, node, role, b"new-life", [1])


async def test_a_channel_needs_the_right_role_and_a_link() -> None:
    """A node that is no end, the fabric, a node under a station's name; a station at a stranger."""
    text = with_station("metro").replace('station = "mid"', 'station = "midpoint"')
    at = text.index('ends = ["alice", "r1"]')
    text = text[:at] + text[at:].replace('station = "midpoint"', 'station = "mid"', 1)
    with run_folder() as runs:
        path = runs / "metro.toml"
        path.write_text(text)
        async with together(path, runs) as made:
            network, folder = made.prepared.network, made.prepared.folder
            impostor = Identity("metro", "mid", "node")
            enrol(folder / "ca", made.prepared.identities, impostor)
            as_node = Credentials.in_folder(made.prepared.identities, impostor)
            cases: list[tuple[str, Credentials, Hello]] = [
                ("mid", made.prepared.credentials("bob", "node"), hello_of(network, "bob", "node")),
                (
                    "mid",
                    made.prepared.credentials("fabric", "fabric"),
                    hello_of(network, "fabric", "fabric"),
                ),
                ("alice", as_node, hello_of(network, "mid", "node")),
                (
                    "bob",
                    made.prepared.credentials("mid", "station"),
                    hello_of(network, "mid", "station"),
                ),
            ]
            for at_whom, credentials, hello in cases:
                assert await refused(made, at_whom, credentials, hello) == "IDENTITY"


async def test_a_station_of_another_authority_is_refused(source: Path) -> None:
    with run_folder() as runs, run_folder() as others:
        async with together(source, runs) as made, together(source, others) as foreign:
            credentials = foreign.prepared.credentials("mid", "station")
            hello = hello_of(made.prepared.network, "mid", "station")
            address = made.prepared.network.address_of("alice")
            stream = await trio.open_tcp_stream(address.host, address.port)
            with pytest.raises(ChannelRefused) as refusal:
                await open_channel(
                    stream,
                    credentials=credentials,
                    server=False,
                    expected=Identity("pair", "alice", "node"),
                    hello=hello,
                    registry=REGISTRY,
                )
            assert refusal.value.code in (ErrorCode.IDENTITY, ErrorCode.PEER_DOWN)


async def test_a_station_takes_no_applications(source: Path) -> None:
    with run_folder() as runs:
        async with together(source, runs) as made:
            path = made.prepared.station_socket("mid")
            async with await trio.open_unix_socket(str(path)) as stream:
                attach = Attach(application="lost", versions=[1], is_observer=False)
                await stream.send_all(pack(encode(attach)))
                (frame,) = FrameReader().feed(await stream.receive_some())
                assert frame.type == SessionError.TYPE
