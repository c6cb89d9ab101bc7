"""`qstack hardware`: what people and scripts see."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qstack.cli.hardware import hardware
from qstack.physical import validation
from qstack.physical.profile import ProfileError
from qstack.physical.profiles import every_packaged_profile, packaged_profile


def run(*words: str) -> Result:
    return CliRunner().invoke(hardware, list(words))


def test_list_names_every_profile_with_its_marks() -> None:
    text = run("list").output
    assert all(name in text for name in every_packaged_profile())
    said = json.loads(run("list", "--json").output)["profiles"]
    assert [each["name"] for each in said] == every_packaged_profile()
    transducer = next(each for each in said if each["name"] == "transducer")
    assert transducer["kind"] == "node"
    assert transducer["marks"] == {"published": 0, "recalled": 0, "projected": 28, "assumed": 0}


def test_show_gives_each_number_its_unit_source_and_mark(tmp_path: Path) -> None:
    text = run("show", "ion-projected").output
    assert "projected: visibility, t2_s, gate_2q_depolarising" in text
    said = json.loads(run("show", "ion-published", "--json").output)
    t2 = next(row for row in said["values"] if row["key"] == "t2_s")
    assert t2 == {
        "key": "t2_s",
        "value": 0.085,
        "unit": "s",
        "mark": "published",
        "source": "arXiv:2207.10579, appendix A.6",
    }
    own = tmp_path / "own.toml"
    own.write_text(packaged_profile("bench").replace('"bench"', '"own"', 1), encoding="utf-8")
    assert json.loads(run("show", str(own), "--json").output)["name"] == "own"


def test_compare_puts_numbers_and_figures_side_by_side() -> None:
    words = ("compare", "nv-near-term", "ion-published", "--length-km", "25")
    said = json.loads(run(*words, "--scheme", "single-click", "--json").output)
    assert said["length_km"] == 25
    near_term, ion = said["profiles"]
    assert near_term["pair_rate_hz"] == pytest.approx(4.1, rel=0.02)
    assert near_term["pair_fidelity"] == pytest.approx(0.803, abs=0.001)
    assert ion["stored_fidelity"] > 0.99
    text = run(*words).output
    assert "projected in nv-near-term: t_emit_ns" in text
    assert "double-click over 25 km" in text


def figures_of(name: str, *words: str) -> dict[str, float]:
    said = json.loads(run("compare", name, *words, "--json").output)["profiles"][0]
    return {key: value for key, value in said.items() if isinstance(value, float)}


def test_compare_gives_each_kind_its_own_figures() -> None:
    stored = figures_of("cold-atom-memory", "--storage-ms", "0.1")
    assert stored["stored_efficiency"] == pytest.approx(0.331, abs=1e-3)
    assert figures_of("photon-pair-link", "--length-km", "35")["pair_qber"] < 0.02
    assert figures_of("satellite")["pass_loss_db"] == pytest.approx(55.9, abs=0.1)
    assert figures_of("free-space-city", "--length-km", "5")["path_loss_db"] > 5.0
    text = run("compare", "cold-atom-memory", "warm-vapour-memory").output
    assert "a photon that waits 10 ms" in text
    mixed = run("compare", "satellite", "bench")
    assert mixed.exit_code == 1
    assert "satellite is a channel (satellite) and bench a node; expected profiles" in mixed.output


def test_a_link_on_which_nothing_succeeds_has_no_figures() -> None:
    far = json.loads(run("compare", "strontium-ion", "--length-km", "1000", "--json").output)[
        "profiles"
    ][0]
    assert far["pair_rate_hz"] is None


@pytest.mark.parametrize(("what", "ending"), [("distance", "png"), ("storage", "svg")])
def test_plot_draws_a_picture(what: str, ending: str, tmp_path: Path) -> None:
    picture = tmp_path / f"p.{ending}"
    names = ("nv-lab", "ion-projected", "strontium-ion")
    result = run("plot", *names, "--what", what, "--max-km", "50", "--output", str(picture))
    assert result.exit_code == 0, result.output
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


@pytest.mark.parametrize(
    "words",
    [
        ("cold-atom-memory", "warm-vapour-memory", "--max-ms", "0.5"),
        ("cold-atom-memory", "nv-lab", "--what", "storage"),
        ("photon-pair-link", "ion-published"),
        ("satellite",),
        ("free-space-city", "--max-km", "20"),
    ],
)
def test_plot_draws_each_kind_its_usual_picture(words: tuple[str, ...], tmp_path: Path) -> None:
    picture = tmp_path / "p.svg"
    result = run("plot", *words, "--output", str(picture))
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("satellite", "--what", "storage"), "no plot of storage; expected --what pass"),
        (("warm-vapour-memory", "--what", "distance"), "expected --what storage"),
        (("nv-lab", "--what", "pass"), "expected --what distance or --what storage"),
        (("nv-lab", "free-space-city"), "expected it in a plot of its own"),
    ],
)
def test_a_plot_that_makes_no_sense_says_which_do(
    words: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    result = run("plot", *words, "--output", str(tmp_path / "p.svg"))
    assert result.exit_code == 1
    assert problem in result.output


def test_bad_words_are_told_what_was_expected(tmp_path: Path) -> None:
    assert isinstance(run("show", "ion-publish").exception, ProfileError)
    assert 'did you mean "ion-published"?' in str(run("show", "ion-publish").exception)
    assert "cannot be read" in str(run("show", "./nothing.toml").exception)
    assert "is not in the range" in run("compare", "bench", "--length-km", "0").output
    assert "no such option" in run("list", "--all").output.lower()
    wrong = run("plot", "bench", "--output", str(tmp_path / "p.doc"))
    assert "a picture ends in .png, .svg, .pdf" in wrong.output
    nowhere = run("plot", "bench", "--output", str(tmp_path / "no" / "p.png"))
    assert "cannot be written" in nowhere.output


def test_the_validation_table_of_the_documentation_is_that_of_the_command() -> None:
    said = run("validate", "--markdown")
    assert said.exit_code == 0
    kept = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")
    assert kept.partition("\n\n| result")[2] == said.output.removeprefix("| result")


def test_recalled_results_never_pass_and_a_wrong_figure_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = json.loads(run("validate", "--json").output)["rows"]
    assert len(said) >= 19
    verdicts = {(row["provenance"], row["verdict"]) for row in said}
    assert verdicts == {
        ("read", "PASS"),
        ("abstract", "PASS"),
        ("computed", "PASS"),
        ("recalled", "informative"),
        ("inferred", "informative"),
    }
    wrong = validation.Row("r", "s", "read", "i", 1.0, "", lambda: 1.2, relative=0.1)
    monkeypatch.setattr("qstack.cli.hardware.rows", lambda: [wrong])
    failed = run("validate")
    assert failed.exit_code == 1
    assert "FAIL" in failed.output
