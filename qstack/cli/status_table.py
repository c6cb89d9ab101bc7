"""The status of a network as tables for people."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]


def status_table(report: Report) -> RenderableType:
    """Clock, nodes, what their layers know, and channels."""
    return Group(changing_table(report), channel_table(report))


def changing_table(report: Report) -> RenderableType:
    """What changes while a network runs: clock, nodes, what their layers know, test rounds."""
    parts: list[RenderableType] = [_clock(report), _nodes(report)]
    if report.get("stations"):
        parts.append(_stations(report))
    parts.append(_layers(report))
    estimates = _estimates(report)
    return Group(*parts, *([estimates] if estimates.row_count else []))


def channel_table(report: Report) -> Table:
    """Who talks to whom, and how it is protected."""
    table = Table("from", "peer identity", "TLS", "key exchange")
    for name, node in (report["nodes"] | report.get("stations", {})).items():
        for channel in (node or {}).get("channels", []):
            table.add_row(name, channel["peer"], channel["tls"], channel["group"])
    return table


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
    table = Table("node", "process", "memory MiB", "qubits", "attempts", "applications", "events")
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


def _stations(report: Report) -> Table:
    """Heralding stations that are processes of their own."""
    table = Table("station", "process", "memory MiB", "links", "batches", "successes", "errors")
    for name, station in report["stations"].items():
        if station is None:
            table.add_row(name, Text("no answer", style="red"))
            continue
        facts = station["layers"]["physical"]
        errors = ", ".join(f"{error} {count}" for error, count in facts["errors"].items())
        table.add_row(
            name,
            str(station["process"]["pid"]),
            str(station["process"]["rss_mib"]),
            " ".join(facts["links"]),
            str(facts["open_batches"]),
            str(facts["successes"]),
            errors or "none",
        )
    return table


def _layers(report: Report) -> Table:
    table = Table("node", "links up", "link requests", "knows", "circuits", "sockets", "streams")
    for name, node in report["nodes"].items():
        if node is None:
            continue
        link, network, transport = (
            node["layers"].get(layer, {}) for layer in ("link", "network", "transport")
        )
        table.add_row(
            name,
            _words(link, "links_up"),
            _words(link, "open_requests"),
            _words(network, "known_nodes"),
            "\n".join(_circuit(circuit) for circuit in network.get("circuits", [])) or "none",
            _words(transport, "sockets"),
            _words(transport, "streams"),
        )
    return table


def _estimates(report: Report) -> Table:
    """What test rounds say of each link, and of each way to run it."""
    table = Table("node", "link to", "promised F", "estimate", "95 %", "rounds", "alarm")
    for name, node in report["nodes"].items():
        for each in (node or {"layers": {}})["layers"].get("link", {}).get("estimates", []):
            found, interval = each["fidelity_estimate"], each["interval"]
            way = "" if each["bright_state"] is None else f" at {each['bright_state']:g}"
            way += " (measured)" if each["kind"] == "measure" else ""
            table.add_row(
                name,
                each["peer"] + way,
                f"{each['promised']:.3f}",
                "none" if found is None else f"{found:.3f}",
                "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
                str(each["test_rounds"]),
                Text(f"offers {each['offered']:.3f}", style="red") if each["alarm"] else "no",
            )
    return table


def _circuit(circuit: Report) -> str:
    route = " ".join(circuit["route"])
    return f"{route}: {circuit['requests']} requests, F {circuit['fidelity']:.3f}"


def _words(summary: Report, key: str) -> str:
    value = "away" if summary.get("is_away") else summary.get(key, "?")
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "none"
    return str(value)
