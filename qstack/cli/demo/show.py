"""What the demo shows people while it runs."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from qstack.cli.demo.expectation import PairExpectation, TeleportExpectation
from qstack.cli.demo.result import ChannelLine, Pairs, Qkd, Recovery, Result, Teleport
from qstack.cli.demo.stage import Line
from qstack.runtime.network_file import Network


class Screen:
    """A console with a progress bar for the act that plays."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.words: list[tuple[str, str]] = []
        self._progress: Progress | None = None
        self._task: Any = None

    def show(self, event: str, **facts: Any) -> None:
        """Show one event; each has a method of its name."""
        if event != "progress":
            self.close()
        getattr(self, f"_on_{event}")(**facts)

    def log(self, name: str, line: str) -> None:
        """Keep what a process says; it is shown if the demo fails."""
        self.words = [*self.words[-49:], (name, line)]

    def close(self) -> None:
        """End the progress bar, if there is one."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _on_network(self, network: Network, seed: int) -> None:
        self.console.print(
            f"[bold]network {network.name}[/]: {len(network.nodes)} nodes, {len(network.links)}"
            f" links, clock {network.clock}, seed {seed} (reproducible, not secret)"
        )
        for link in network.links.values():
            first, second = link.ends
            self.console.print(
                f"  {first} - {second}: {link.length_m / 1000:g} km of fibre, {link.scheme}"
            )
        if network.cutoff_ns is not None:
            self.console.print(
                f"  repeaters discard pairs older than {network.cutoff_ns / 1e6:g} ms"
            )
        if network.projected:
            names = ", ".join(network.projected)
            self.console.print(f"  projected, better than published: {names}")
        if network.assumed:
            names = ", ".join(network.assumed)
            self.console.print(f"  assumed, not given by the source: {names}", style="dim")
        self.console.print("making a certificate authority and identities, starting processes ...")

    def _on_ready(self, seconds: float) -> None:
        self.console.print(f"fabric and nodes are up after {seconds:.1f} s")

    def _on_channels(self, channels: list[ChannelLine]) -> None:
        table = Table("node", "peer identity", "TLS", "key exchange")
        for channel in channels:
            table.add_row(channel.node, channel.peer, channel.tls, channel.group)
        self.console.print(table)

    def _on_act(self, text: str) -> None:
        self.console.print(f"[bold]{text}[/]")

    def _on_progress(self, act: str, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(act, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done)

    def _on_pairs(self, result: Pairs, expected: PairExpectation) -> None:
        self._table(
            ("measured", f"{result.fidelity:.4f}  95 % in [{result.fidelity_low:.4f},"
             f" {result.fidelity_high:.4f}]  raw, X Y Z correlations"),
            ("truth of the fabric", f"{result.fidelity_truth:.4f} +- {result.truth_se:.4f}"),
            ("prediction", f"{result.fidelity_predicted:.4f} +- {result.predicted_se:.4f}"),
            ("pairs", f"{result.delivered} delivered, {result.discarded} link pairs discarded by"
             f" cutoff (expected {expected.discards_per_pair * result.delivered:.0f})"),
            ("time", f"{result.network_s:.2f} s of network time ({result.rate_hz:.2f} pairs/s,"
             f" expected {1 / expected.pair_interval_s:.2f} from one slot a link),"
             f" {result.wall_s:.1f} s of wall time"),
            ("direct transmission", f"{result.direct_hz:.1f} photons/s over the same fibre"),
        )  # fmt: skip

    def _on_teleports(self, result: Teleport, expected: TeleportExpectation) -> None:
        self._table(
            ("measured", f"{result.fidelity:.4f} +- {result.fidelity_se:.4f}  average over the"
             f" six cardinal states, {result.count} qubits"),
            ("prediction", f"{result.predicted:.4f} +- {result.predicted_se:.4f}"),
            ("(2F+1)/3", f"{result.ideal:.4f}  with F = {expected.pair_fidelity:.4f} and nothing"
             " else imperfect"),
            ("classical bound", f"{result.classical_bound:.4f}"),
            ("time", f"{result.network_s:.2f} s of network time, {result.wall_s:.1f} s of wall"
             " time"),
        )  # fmt: skip

    def _on_key(self, result: Qkd, text: str) -> None:
        self._table(
            ("sifted", f"{result.sifted_bits} bits of {result.pairs} pairs in equal bases"),
            ("error rates", f"Z {result.qber_z:.4f}, X {result.qber_x:.4f}; closed form"
             f" {result.qber_predicted:.4f}"),
            ("disclosed", f"{result.leak_bits} bits by Cascade, {result.efficiency:.3f} of the"
             " Shannon limit"),
            ("key", f"{result.key_bits} bits, {'equal' if result.keys_equal else 'NOT equal'} at"
             f" both ends, from n = {result.n} and k = {result.k}"),
            ("bound", f"{result.bound}; eps_sec {result.eps_sec:.0e}, eps_cor"
             f" {result.eps_cor:.0e}; origin {result.origin}, {result.note}"),
            ("message", f'"{text}", read under the key'),
            ("time", f"{result.network_s:.2f} s of network time, {result.wall_s:.1f} s of wall"
             " time"),
        )  # fmt: skip

    def _on_killed(self, victim: str) -> None:
        self.console.print(f"  {victim} was killed; the clock goes on")

    def _on_told(self, line: Line) -> None:
        what = f"error {line['code']}: {line['reason']}" if line["code"] else line["reason"]
        came = f"{line['came']} pairs, then " if "came" in line else ""
        at_s = line["now_ns"] / 1e9
        self.console.print(f"  the asker was told at network time {at_s:.6f} s: {came}{what}")

    def _on_recovery(self, result: Recovery) -> None:
        self.console.print(
            f"  the service is back: a new pair {result.recovered_network_s:.3f} s of network time"
            f" ({result.recovered_s:.1f} s of wall time) after the kill"
        )

    def _on_end(self, result: Result) -> None:
        for sentence in result.failed:
            self.console.print(f"[red]did not hold:[/] {sentence}")
        if result.failed:
            self._on_failure()
        verdict = "[red]something did not hold[/]" if result.failed else "[green]all of it held[/]"
        self.console.print(
            f"{verdict}: {result.network_s:.1f} s of network time in {result.rounds} rounds,"
            f" {result.processes} processes, {result.elapsed_s:.1f} s in all"
        )

    def _on_failure(self) -> None:
        """What the processes said last."""
        for name, line in self.words[-10:]:
            self.console.print(f"  {name}: {line}", markup=False, highlight=False)

    def _table(self, *rows: tuple[str, str]) -> None:
        table = Table(show_header=False)
        for name, value in rows:
            table.add_row(name, value)
        self.console.print(table)
