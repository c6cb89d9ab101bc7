"""The status of a network as tables for people."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]


def status_table(report: Report) -> RenderableType:
    """Nodes, links and circuits, channels, clock."""
    return Group(_clock(report), _nodes(report), _links(report), _channels(report))


def _clock(report: Report) -> Text:
    fabric = report["fabric"]
    if fabric is None:
        return Text("fabric: gone", style="red")
    clock = fabric["clock"]
    text = f"clock: {clock['kind']}, network time {clock['now_ns'] / 1e9:.6f} s"
    if "rounds" in clock:
        text += f", {clock['rounds']} rounds"
    if clock.get("held_at_ns") is not None:
        text += f", held at {clock['held_at_ns'] / 1e9:.6f} s"
    return Text(text)


def _nodes(report: Report) -> Table:
    table = Table("node", "process", "memory MiB", "qubits", "attempts", "sessions", "events")
    fabric = report["fabric"] or {"qubits": {}, "batches": {}}
    for name, node in report["nodes"].items():
        if node is None:
            table.add_row(name, Text("no answer", style="red"))
            continue
        process = node["process"]
        table.add_row(
            name,
            str(process["pid"]),
            str(process["rss_mib"]),
            str(fabric["qubits"].get(name, "?")),
            str(fabric["batches"].get(name, "?")),
            str(len([s for s in node["sessions"] if s.startswith("app/")])),
            str(node["events"]),
        )
    return table


def _links(report: Report) -> Table:
    table = Table("node", "layer", "what it knows")
    for name, node in report["nodes"].items():
        for layer, summary in (node or {}).get("layers", {}).items():
            if summary:
                words = ", ".join(f"{key} {_short(value)}" for key, value in summary.items())
                table.add_row(name, layer, words)
    return table


def _short(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "none"
    return str(value)


def _channels(report: Report) -> Table:
    table = Table("from", "peer identity", "TLS", "key exchange")
    for name, node in report["nodes"].items():
        for channel in (node or {}).get("channels", []):
            table.add_row(name, channel["peer"], channel["tls"], channel["group"])
    return table
