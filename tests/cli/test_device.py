"""`qstack device`: what people and scripts see."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qstack.cli.device import device
from qstack.physical.drivers.setup import DriverError

CHECK = ("check", "template", "--profile", "bench")


def run(*words: str) -> Result:
    return CliRunner().invoke(device, list(words))


def test_list_names_the_drivers_and_where_they_are() -> None:
    lines = dict(line.split("\t") for line in run("list").output.splitlines())
    assert lines["replay"] == "qstack.physical.drivers.replay:ReplayDevice"


def test_a_good_driver_has_a_table_of_verdicts_and_status_0() -> None:
    result = run(*CHECK)
    assert result.exit_code == 0, result.output
    assert "template as bench" in result.output
    assert "31 checks, 0 failed" in result.output
    said = json.loads(run(*CHECK, "--json").output)
    assert (said["driver"], said["profile"], said["is_passed"]) == ("template", "bench", True)
    assert {each["verdict"] for each in said["checks"]} == {"passed", "not-offered"}


def test_a_wrong_driver_has_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "from qstack.physical.drivers.template import TemplateDevice\n"
    text += (
        "class Mute(TemplateDevice):\n    def answers(self, now): super().answers(now); return []"
    )
    (tmp_path / "mute_driver.py").write_text(text, encoding="utf-8")
    result = run("check", "mute_driver", "--profile", "bench")
    assert result.exit_code == 1
    assert "FAILED" in result.output
    failed = [
        each["check"]
        for each in json.loads(run("check", "mute_driver", "--profile", "bench", "--json").output)[
            "checks"
        ]
        if each["verdict"] == "failed"
    ]
    assert "a fresh qubit is answered" in failed


def test_what_cannot_be_checked_is_told() -> None:
    assert isinstance(run("check", "no.module").exception, DriverError)
    assert isinstance(run("check", "replay", "--profile", "bench").exception, DriverError)
    assert "is not KEY=VALUE" in run("check", "template", "--option", "nothing").output
