"""Nodes on separate hosts, brought up as docs/two-hosts.md says: keys, certificates, one file."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.runtime.hosts import (
    HostProcesses,
    Hosts,
    LoopbackHosts,
    NamespaceHosts,
    ended_at_last,
    why_no_namespaces,
    why_no_shaping,
)
from tests.runtime.running import packaged, run_folder

NODES = ["alice", "r1", "r2", "bob"]
FABRIC = "r1"  # the host that runs the fabric, beside its node
NO_NAMESPACES = why_no_namespaces()
NO_SHAPING = NO_NAMESPACES or why_no_shaping()


def write_network(hosts: Hosts, port: int) -> None:
    """The packaged metro, with the addresses of the hosts, on each of them."""
    text = packaged("metro").read_text()
    for name in NODES:
        given = f'name = "{name}"\naddress = "127.0.0.1:0"'
        assert given in text
        text = text.replace(given, f'name = "{name}"\naddress = "{hosts.address(name)}:{port}"')
    text = re.sub(r'"127.0.0.1:0"', f'"{hosts.address(FABRIC)}:{port + 1}"', text)
    for name in NODES:
        (hosts.outside(name) / "metro.toml").write_text(text)


def enrol(processes: HostProcesses, host: str, node: str, role: str) -> None:
    """The host makes key and request, the operator (on alice) the certificate."""
    hosts = processes.hosts
    who = ("--network", "metro", "--node", node, "--role", role)
    keys = str(hosts.inside(host) / "identities")
    asked = processes.qstack(host, "ca", "request", keys, *who)
    authority = str(hosts.inside("alice") / "ca")
    issued = processes.qstack("alice", "ca", "issue", authority, "-", *who, said=asked)
    folder = hosts.outside(host) / "identities"
    (folder / f"{node}.{role}.pem").write_bytes(issued)
    (folder / "root.pem").write_bytes((hosts.outside("alice") / "ca" / "root.pem").read_bytes())


def start_node(processes: HostProcesses, name: str) -> None:
    folder = processes.hosts.inside(name)
    where = (str(folder / "metro.toml"), "--name", name, "--credentials", f"{folder}/identities")
    processes.start(name, "node", "run", *where)


@contextmanager
def metro_on(hosts: Hosts, port: int) -> Iterator[HostProcesses]:
    """The network up, one node a host."""
    write_network(hosts, port)
    with ended_at_last(HostProcesses(hosts)) as processes:
        authority = str(hosts.inside("alice") / "ca")
        processes.qstack("alice", "ca", "init", authority, "--network", "metro")
        for name in NODES:
            enrol(processes, name, name, "node")
        enrol(processes, FABRIC, "fabric", "fabric")
        folder = hosts.inside(FABRIC)
        where = (str(folder / "metro.toml"), "--credentials", f"{folder}/identities")
        processes.start(FABRIC, "fabric", "run", *where)
        fabric = processes._running.pop(FABRIC)
        processes._running["fabric"] = fabric
        for name in NODES:
            start_node(processes, name)
        processes.wait_for_log(FABRIC, "all 4 nodes are here")
        yield processes
        assert set(processes.stop().values()) <= {0, -9}


def check_service(processes: HostProcesses) -> None:
    """Pairs over two repeaters, asked for and read from one host's own command line."""
    said = processes.qstack("alice", "ping", "bob", "-c", "6", "--deadline", "60").decode()
    assert "6 pairs" in said, said


def check_isolation(processes: HostProcesses) -> None:
    """Every host shows its own node, and its keys are nowhere else."""
    for name in NODES:
        (report,) = json.loads(processes.qstack(name, "status", "--json"))["networks"]
        assert list(report["nodes"]) == [name]
        keys = sorted(path.name for path in processes.hosts.outside(name).rglob("*.key"))
        expected = {f"{name}.node.key"} | ({"fabric.fabric.key"} if name == FABRIC else set())
        assert set(keys) - {"root.key"} == expected, keys


@pytest.fixture(scope="module")
def loopback() -> Iterator[HostProcesses]:
    with run_folder() as folder, ExitStack() as ports:
        hosts = LoopbackHosts(folder, NODES)
        port = ports.enter_context(socket.create_server(("127.0.0.2", 0))).getsockname()[1]
        ports.close()
        with metro_on(hosts, port) as processes:
            yield processes


@pytest.mark.soak  # every test of this file where hosts are namespaces says more
def test_hosts_that_are_addresses_with_folders_of_their_own_make_pairs(
    loopback: HostProcesses,
) -> None:
    check_service(loopback)
    check_isolation(loopback)


@pytest.mark.soak
def test_a_node_that_dies_and_is_started_again_by_hand_takes_part_again(
    loopback: HostProcesses,
) -> None:
    loopback.kill("r2")
    loopback.wait_for_log(FABRIC, "node r2 is down")
    start_node(loopback, "r2")
    loopback.wait_for_log(FABRIC, "node r2 is back")
    check_service(loopback)


@pytest.mark.skipif(bool(NO_NAMESPACES), reason=f"no hosts in namespaces: {NO_NAMESPACES}")
def test_hosts_in_namespaces_of_their_own_make_pairs() -> None:
    with (
        run_folder() as folder,
        NamespaceHosts(folder, NODES) as hosts,
        metro_on(hosts, 7400) as processes,
    ):
        check_service(processes)
        check_isolation(processes)
        hosts.plug("r1", is_in=False)
        hosts.plug("r1", is_in=True)
        check_service(processes)


@pytest.mark.skipif(bool(NO_SHAPING), reason=f"no latency and loss by tc netem: {NO_SHAPING}")
def test_latency_and_loss_between_hosts_break_nothing() -> None:
    with run_folder() as folder, NamespaceHosts(folder, NODES) as hosts:
        for name in NODES:
            hosts.shape(name, "netem delay 5ms 2ms loss 1%")
        with metro_on(hosts, 7400) as processes:
            check_service(processes)
