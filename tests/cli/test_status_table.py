"""The tables of `qstack status` for people."""

from typing import Any

from rich.console import Console

from qstack.cli.status_table import status_table


def shown(estimates: list[dict[str, Any]] | None) -> str:
    link = {"links_up": ["bob"], "open_requests": 0}
    node = {
        "process": {"pid": 1, "rss_mib": 1.0}, "sessions": [], "events": 3, "channels": [],
        "layers": {"link": link if estimates is None else {**link, "estimates": estimates}},
    }  # fmt: skip
    report = {"network": "pair", "fabric": None, "nodes": {"alice": node, "bob": None}}
    console = Console(width=160)
    with console.capture() as capture:
        console.print(status_table(report))
    return capture.get()


def estimate(**changes: Any) -> dict[str, Any]:
    return {
        "peer": "bob", "bright_state": None, "kind": "keep", "promised": 0.9741,
        "fidelity_estimate": 0.9712, "interval": [0.9501, 0.9812], "test_rounds": 633,
        "offered": None, "alarm": False, **changes,
    }  # fmt: skip


def test_estimates_are_shown_with_their_interval() -> None:
    (line,) = [each for each in shown([estimate()]).splitlines() if "633" in each]
    for text in ("alice", "bob", "0.974", "0.971", "0.950 to 0.981", "no"):
        assert text in line


def test_an_alarm_says_what_is_offered_and_of_which_way() -> None:
    (line,) = [
        each
        for each in shown([estimate(bright_state=0.1, offered=0.8123, alarm=True)]).splitlines()
        if "633" in each
    ]
    assert "bob at 0.1" in line
    assert "offers 0.812" in line


def test_rounds_of_measured_pairs_are_a_row_of_their_own() -> None:
    lines = shown([estimate(), estimate(kind="measure", test_rounds=97)]).splitlines()
    assert ["(measured)" in each for each in lines if "bob" in each and "0.97" in each] == [
        False,
        True,
    ]


def test_an_option_without_rounds_shows_none() -> None:
    unknown = estimate(fidelity_estimate=None, interval=None, test_rounds=0)
    assert "none" in shown([unknown])


def test_without_test_rounds_there_is_no_such_table() -> None:
    for estimates in ([], None):
        assert "promised F" not in shown(estimates)
