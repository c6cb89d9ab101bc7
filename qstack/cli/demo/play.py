"""The demo, act by act: it drives the stage, counts, and compares with theory."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Final

import trio

from qstack.channel.preshared import file_name
from qstack.cli.demo.applications import Plan
from qstack.cli.demo.expectation import (
    PairExpectation,
    TeleportExpectation,
    direct_transmission_hz,
    expect_pairs,
    expect_teleports,
)
from qstack.cli.demo.key_act import KeyPlan
from qstack.cli.demo.result import (
    ChannelLine,
    Pairs,
    Qkd,
    Recovery,
    Result,
    Teleport,
    checks,
    key_checks,
)
from qstack.cli.demo.stage import Application, DemoError, Line, application
from qstack.physical.hardware import LinkHardware
from qstack.physical.models.pair_source import error_rate
from qstack.quantum.estimation import (
    BASES,
    Correlators,
    Readout,
    bases_for,
    estimate,
    expected_correlators,
    fidelity_of,
    sampling_error,
)
from qstack.runtime.control_client import FabricControl, open_control
from qstack.runtime.launch import Prepared
from qstack.runtime.network_file import Network
from qstack.runtime.observe import Report, observe_network

PAIRS: Final = 200
TELEPORTS: Final = 6 * 50
KEY_PAIRS: Final = 60_000  # 58 % of them are read in equal bases
FAILURE_AFTER_NS: Final = 500_000_000  # into the request of act three
RECOVERY_NS: Final = 1_000_000_000  # its deadline: it ends before the repeater is back
NOTICE_S: Final = 0.01
NS: Final = 1e-9

Show = Callable[..., None]
"""Called with the name of what happened and its figures."""


@dataclass
class Cast:
    """Who plays: the ends, and the repeater that dies."""

    head: str
    tail: str
    victim: str | None
    counted: list[Line] = field(default_factory=list)


def choose_cast(network: Network) -> Cast:
    """The two nodes farthest apart in hops (then by name), and the first node between them.

    Hops are links whose pairs can be kept: the demonstration keeps them and teleports with them.
    """
    neighbours: dict[str, list[str]] = {name: [] for name in sorted(network.nodes)}
    for link in network.links.values():
        if not link.is_heralded:
            continue
        first, second = link.ends
        neighbours[first].append(second)
        neighbours[second].append(first)
    best: list[str] = []
    for start in neighbours:
        paths = {start: [start]}
        queue = [start]
        for here in queue:
            for there in sorted(neighbours[here]):
                if there not in paths:
                    paths[there] = [*paths[here], there]
                    queue.append(there)
        farthest = max(paths.values(), key=lambda path: (len(path), [-ord(c) for c in path[-1]]))
        best = max(best, farthest, key=len)
    if len(best) < 2:
        raise DemoError(f"network {network.name} has no two connected nodes to play with")
    return Cast(best[0], best[-1], best[1] if len(best) > 2 else None)


async def play(
    prepared: Prepared, seed: int, show: Show, *, started_s: float, pairs: int, teleports: int
) -> Result:
    """All acts, in a network that is up. Raises `DemoError`."""
    network = prepared.network
    cast = choose_cast(network)
    report = await observe_network(prepared.folder)
    channels = [
        ChannelLine(channel["peer"], channel["group"], channel["tls"], name)
        for name, node in report["nodes"].items()
        for channel in (node or {}).get("channels", [])
    ]
    show("channels", channels=channels)
    recovery_ns = RECOVERY_NS if cast.victim else None
    has_key = photon_pair_link(network, cast) is not None
    plans = [
        Plan(
            is_head=is_head,
            node=here,
            remote=there,
            pairs=pairs,
            teleports=teleports,
            min_fidelity=0.5,
            recovery_ns=recovery_ns,
            key=_key_plan(prepared, here, there) if has_key else None,
        )
        for is_head, here, there in ((True, cast.head, cast.tail), (False, cast.tail, cast.head))
    ]
    async with (
        open_control(prepared.control_socket) as control,
        application(prepared, plans[0]) as head,
        application(prepared, plans[1]) as tail,
    ):
        act = Act(prepared, network, cast, control, head, tail, show)
        pair_result = await act.pairs(pairs)
        teleport_result = await act.teleports(teleports)
        key_result = await act.key()
        recovery = await act.recovery()
        world = await control.world()
    failed = checks(pair_result, pairs, teleport_result, channels) + key_checks(key_result)
    if cast.victim and recovery.recovered_network_s <= 0:
        failed.append("the service did not come back")
    return Result(
        network=network.name,
        processes=len(network.nodes) + 3,  # the fabric and two applications
        channels=channels,
        clock=network.clock,
        seed=seed,
        reproducible="reproducible, not secret",
        origin="emulated",
        network_s=world["clock"]["now_ns"] * NS,
        rounds=world["clock"].get("rounds", 0),
        projected=network.projected,
        assumed=network.assumed,
        pairs=pair_result,
        teleport=teleport_result,
        qkd=key_result,
        recovery=recovery,
        elapsed_s=time.perf_counter() - started_s,
        failed=failed,
    )


@dataclass
class Act:
    """What the acts share."""

    prepared: Prepared
    network: Network
    cast: Cast
    control: FabricControl
    head: Application
    tail: Application
    show: Show
    killed_s: float = 0.0  # wall time of the kill

    async def pairs(self, number: int) -> Pairs:
        """Act one."""
        self.show("act", text=f"{number} pairs, {self.cast.head} to {self.cast.tail}")
        wall_s = time.perf_counter()
        expected = await trio.to_thread.run_sync(self._expect_pairs, number)
        here: dict[str, Line] = {}
        there: dict[str, Line] = {}

        def heard(line: Line) -> None:
            here[line["pair"]] = line
            self.show("progress", act="pairs", done=len(here), total=number)

        end = await self.head.until("waiting", heard)
        while len(there) < number:
            line = await self.tail.until("pair", lambda _: None)
            there[line["pair"]] = line
        both = [
            (here[name], there[name])
            for name in here
            if name in there and here[name]["basis"] == there[name]["basis"]
        ]
        result = self._pair_result(
            estimate([(a["basis"], a["outcome"], b["outcome"]) for a, b in both]),
            await self._truths(),
            expected,
            discarded=len(_discarded(await observe_network(self.prepared.folder))),
            network_s=end["now_ns"] * NS,
            wall_s=time.perf_counter() - wall_s,
        )
        self.show("pairs", result=result, expected=expected)
        return result

    def _expect_pairs(self, number: int) -> PairExpectation:
        return expect_pairs(self.network, self.cast.head, self.cast.tail, pairs=number)

    def _pair_result(
        self,
        measured: Any,
        truths: list[Correlators],
        expected: PairExpectation,
        *,
        discarded: int,
        network_s: float,
        wall_s: float,
    ) -> Pairs:
        fidelities = [fidelity_of(truth) for truth in truths]
        mean = (
            fmean(truth[0] for truth in truths),
            fmean(truth[1] for truth in truths),
            fmean(truth[2] for truth in truths),
        )
        counts = [bases_for(measured.pairs).count(basis) for basis in BASES]
        return Pairs(
            delivered=measured.pairs,
            discarded=discarded,
            fidelity=measured.fidelity,
            fidelity_low=measured.low,
            fidelity_high=measured.high,
            fidelity_se=measured.standard_error,
            sampling_se=sampling_error(mean, counts),
            fidelity_truth=fmean(fidelities),
            truth_se=stdev(fidelities) / sqrt(len(fidelities)),
            fidelity_predicted=expected.fidelity,
            predicted_se=expected.fidelity_se,
            network_s=network_s,
            wall_s=wall_s,
            rate_hz=measured.pairs / network_s,
            direct_hz=direct_transmission_hz(self.network, self.cast.head, self.cast.tail),
        )

    async def _truths(self) -> list[Correlators]:
        """The correlators endless pairs in the state of each measured pair would give."""
        profiles = {name: node.profile for name, node in self.network.nodes.items()}
        readouts = {name: Readout(p.readout_f0, p.readout_f1) for name, p in profiles.items()}
        ends = {self.cast.head, self.cast.tail}
        return [
            expected_correlators(pair.pair, *(readouts[name] for name in pair.nodes))
            for pair in await self.control.truths()
            if set(pair.nodes) == ends
        ]

    async def teleports(self, number: int) -> Teleport:
        """Act two."""
        self.show("act", text=f"{number} qubits teleported, {self.cast.head} to {self.cast.tail}")
        wall_s = time.perf_counter()
        before_ns = (await self.control.world())["clock"]["now_ns"]
        expected = await trio.to_thread.run_sync(self._expect_teleports)
        await self.head.go_on()
        right: list[int] = []
        while len(right) < number:
            line = await self.tail.until("teleport", lambda _: None)
            right.append(line["right"])
            self.show("progress", act="teleports", done=len(right), total=number)
        end = await self.head.until("waiting", lambda _: None)
        share = fmean(right)
        result = Teleport(
            count=number,
            fidelity=share,
            fidelity_se=sqrt(max(share * (1 - share), 1 / (number + 1)) / number),
            predicted=expected.fidelity,
            predicted_se=expected.fidelity_se,
            ideal=expected.ideal,
            classical_bound=expected.classical_bound,
            network_s=(end["now_ns"] - before_ns) * NS,
            wall_s=time.perf_counter() - wall_s,
        )
        self.show("teleports", result=result, expected=expected)
        return result

    def _expect_teleports(self) -> TeleportExpectation:
        return expect_teleports(self.network, self.cast.head, self.cast.tail)

    async def key(self) -> Qkd | None:
        """A key over the photon-pair link of the two ends, if they have one, and its use."""
        link = photon_pair_link(self.network, self.cast)
        plans = [end.plan.key for end in (self.head, self.tail)]
        if link is None or plans[0] is None or plans[1] is None:
            return None
        ends = f"{self.cast.head} and {self.cast.tail}"
        self.show("act", text=f"a key for {ends}, from {plans[0].pairs} pairs measured by each")
        wall_s = time.perf_counter()
        before_ns = (await self.control.world())["clock"]["now_ns"]
        await self.head.go_on()

        def heard(progress: Line) -> None:
            self.show("progress", act="key, %", done=int(100 * progress["fraction"]), total=100)

        line = await self.head.until("key", heard)
        await self.tail.until("key", lambda _: None)
        message = await self.tail.until("message", lambda _: None)
        await self.head.until("waiting", lambda _: None)
        here, there = [await trio.Path(plan.file).read_bytes() for plan in plans if plan]
        figures = line["figures"]
        result = Qkd(
            pairs=plans[0].pairs,
            sifted_bits=figures["sifted_bits"],
            n=figures["n"],
            k=figures["k"],
            qber_z=figures["qber_z"],
            qber_x=figures["qber_x"],
            qber_predicted=error_rate(link.pair_source()),
            leak_bits=figures["leak_bits"],
            efficiency=figures["efficiency"],
            key_bits=line["key_bits"],
            bound=figures["bound"],
            eps_sec=figures["eps_sec"],
            eps_cor=figures["eps_cor"],
            keys_equal=here == there and 8 * len(here) >= line["key_bits"],
            message_read=message["right"],
            origin=line["origin"],
            note=line["note"],
            network_s=(line["now_ns"] - before_ns) * NS,
            wall_s=time.perf_counter() - wall_s,
        )
        self.show("key", result=result, text=message["text"])
        return result

    async def recovery(self) -> Recovery:
        """The last act."""
        victim = self.cast.victim
        if victim is None:
            await self.head.go_on()
            await self.head.until("end", lambda _: None)
            return _no_recovery()
        at_ns = (await self.control.world())["clock"]["now_ns"] + FAILURE_AFTER_NS
        self.show("act", text=f"SIGKILL of {victim} at network time {at_ns * NS:.6f} s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_at, victim, at_ns)
            await self.head.go_on()
            told = await self.head.until("told", lambda _: None)
            self.show("told", line=told)
            back = await self.head.until("recovered", lambda line: self.show("told", line=line))
        wall_s = time.perf_counter()
        await self.head.until("end", lambda _: None)
        result = Recovery(
            killed=victim,
            killed_at_network_s=at_ns * NS,
            told=told["code"] or "nothing: all pairs came",
            told_pairs=told["came"],
            recovered_s=wall_s - self.killed_s,
            recovered_network_s=(back["now_ns"] - at_ns) * NS,
        )
        self.show("recovery", result=result)
        return result

    async def _kill_at(self, victim: str, at_ns: int) -> None:
        """Let the clock stand at `at_ns`, kill the process, and let the clock go on."""
        await self.control.hold(at_ns)
        node = (await observe_network(self.prepared.folder))["nodes"][victim]
        assert node is not None
        self.killed_s = time.perf_counter()
        os.kill(node["process"]["pid"], signal.SIGKILL)
        while True:  # the clock stands until it is noticed
            world = await self.control.world()
            if victim not in world["nodes"]:
                break
            await trio.sleep(NOTICE_S)
        self.show("killed", victim=victim)
        await self.control.release()


def photon_pair_link(network: Network, cast: Cast) -> LinkHardware | None:
    """The link between the two ends whose pairs are measured at once, if there is one."""
    ends = tuple(sorted((cast.head, cast.tail)))
    links = (link for link in network.links.values() if not link.is_heralded)
    return next((link for link in links if link.ends == ends), None)


def _key_plan(prepared: Prepared, here: str, there: str) -> KeyPlan:
    return KeyPlan(
        network=prepared.network.name,
        pairs=KEY_PAIRS,
        secret=str(prepared.identities / file_name(here, there)),
        file=str(prepared.folder / f"{here}.key"),
    )


def _discarded(report: Report) -> set[str]:
    """The link pairs that were thrown away by cutoff, each once though both ends may have it."""
    nodes = [node for node in report["nodes"].values() if node]
    return {pair for node in nodes for pair in node["discarded_pairs"]}


def _no_recovery() -> Recovery:
    return Recovery(
        killed=None,
        killed_at_network_s=0.0,
        told="no repeater in this network",
        told_pairs=0,
        recovered_s=0.0,
        recovered_network_s=0.0,
    )
