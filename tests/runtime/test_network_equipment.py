"""NETWORK.toml: links by a midpoint source and by absorptive memories; such networks at work."""

from typing import Any

import pytest

from qstack.cli.demo.expectation import expect_pairs
from qstack.runtime.network_file import Network
from tests.runtime.agreement import assert_measured_pairs_agree
from tests.runtime.test_network_file import link, node, parsed, problems_of

MIDPOINT: dict[str, object] = {
    "wavelength_nm": 1550, "pair_parameter": 0.02, "trial_ns": 100, "trials": 200,
    "latch_efficiency": 0.5, "false_latch_probability": 1e-6, "source_fidelity": 0.99,
    "write_fidelity": 0.98,
}  # fmt: skip
ABSORPTIVE: dict[str, object] = {
    "wavelength_nm": 1550, "pair_parameter": 0.01, "mode_ns": 50, "modes": 500,
    "idler_efficiency": 0.6, "dark_count_probability": 1e-7, "visibility": 0.95,
    "number_resolving": "false", "write_efficiency": 0.8, "storage_heralded": "true",
}  # fmt: skip
TABLES = {"midpoint_source": MIDPOINT, "absorptive_memory": ABSORPTIVE}
SCHEMES = {"midpoint_source": '"midpoint-source"', "absorptive_memory": '"absorptive-memory"'}


def equipped(name: str, changes: dict[str, object] | None = None, **lines: object) -> str:
    """A link with its table, values as given or left out (None)."""
    text = link("a", "b", **({"scheme": SCHEMES[name], "length_m": 20_000} | lines))
    for key, value in (TABLES[name] | (changes or {})).items():
        if value is not None:
            text += f'[link.{name}.{key}]\nvalue = {value}\nsource = "s"\nmark = "assumed"\n'
    return text


def network(name: str, profile: str = "ion-projected") -> Network:
    return parsed(node("a", profile), node("b", profile), equipped(name))


@pytest.mark.parametrize("name", TABLES)
def test_a_file_says_all_of_the_equipment_and_where_it_comes_from(name: str) -> None:
    hardware = network(name).links["a-b"]
    assert hardware.equipment is not None
    assert {each.key for each in hardware.equipment.sources} == set(TABLES[name])
    assert f"a-b.{'trials' if name == 'midpoint_source' else 'modes'}" in network(name).assumed
    assert hardware.attenuation_db_per_km == pytest.approx(0.2)


@pytest.mark.parametrize("name", TABLES)
def test_sources_are_not_in_the_digest_and_numbers_are(name: str) -> None:
    texts = [equipped(name), equipped(name).replace('"s"', '"t"')]
    texts.append(equipped(name, {"pair_parameter": 0.03}))
    digests = [parsed(node("a"), node("b"), text).digest for text in texts]
    assert digests[0] == digests[1] != digests[2]


def test_a_station_may_have_a_dead_time() -> None:
    table = '[link.station_detectors.dead_time_ns]\nvalue = 200\nsource = "s"\nmark = "assumed"\n'
    plain = equipped("absorptive_memory")
    slow = parsed(node("a"), node("b"), plain + table)
    detectors = slow.links["a-b"].station_detectors
    assert detectors is not None
    assert detectors.dead_modes(50) == 3
    assert "a-b.dead_time_ns" in slow.assumed
    assert slow.digest != parsed(node("a"), node("b"), plain).digest
    bad = problems_of(node("a"), node("b"), plain + table.replace("200", "-1"))
    assert bad[0].startswith("link[0].station_detectors.dead_time_ns.value: -1 is not allowed")


@pytest.mark.parametrize("name", TABLES)
def test_nodes_need_not_be_alike(name: str) -> None:
    built = parsed(node("a", "nv-near-term"), node("b", "ion-published"), equipped(name))
    assert built.links["a-b"].is_heralded


BAD = {
    "no table": (
        link("a", "b", scheme='"midpoint-source"'),
        "link[0].midpoint_source: is missing; expected a table [link.midpoint_source] for a link "
        'of scheme "midpoint-source"',
    ),
    "another scheme": (
        equipped("absorptive_memory", scheme='"double-click"'),
        'link[0].absorptive_memory: is not for a link of scheme "double-click"; expected none, or '
        'scheme = "absorptive-memory"',
    ),
    "the other's table": (
        equipped("absorptive_memory", scheme='"midpoint-source"'),
        "link[0].midpoint_source: is missing",
    ),
    "a number left out": (
        equipped("midpoint_source", {"trials": None}),
        "link[0].midpoint_source.trials: is missing; expected { value = ..., source = ..., "
        "mark = ... } with a whole number of trials, 1 to 1000000",
    ),
    "half a mode": (
        equipped("absorptive_memory", {"modes": 0.5}),
        "link[0].absorptive_memory.modes.value: 0.5 is not allowed; expected a whole number of "
        "modes, 1 to 1000000",
    ),
    "not a table": (
        link("a", "b", scheme='"midpoint-source"', midpoint_source=3),
        "link[0].midpoint_source: 3 is not allowed; expected a table [link.midpoint_source]",
    ),
    "light that fibre swallows": (
        equipped("midpoint_source", {"wavelength_nm": 637}),
        "expected light in a telecom band (midpoint_source.wavelength_nm), or at most 8000 m",
    ),
    "no hope": (
        equipped("absorptive_memory", {"write_efficiency": 1e-12}),
        "expected at least 1e-18: see the numbers of absorptive_memory",
    ),
    "a node that cannot be": (
        equipped("midpoint_source").replace('["a", "b"]', '["a", "c"]'),
        "link[0].ends",
    ),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD.keys())
def test_a_link_that_cannot_be_is_told_what_was_expected(text: str, problem: str) -> None:
    problems = problems_of(node("a"), node("b"), text)
    assert any(problem in line for line in problems), problems


def test_a_table_that_is_wrong_is_told_of_beside_a_node_that_is() -> None:
    text = equipped("midpoint_source", {"trials": None})
    problems = problems_of(node("a", "no-such-profile"), node("b"), text)
    assert any("trials: is missing" in line for line in problems)
    assert any("no-such-profile" in line for line in problems)


# --- at work -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("basis", ["X", pytest.param("Z", marks=pytest.mark.soak)])
def test_pairs_measured_end_to_end_agree_as_the_link_s_state_says(name: str, basis: Any) -> None:
    assert_measured_pairs_agree(network(name), basis)


@pytest.mark.parametrize("name", TABLES)
def test_the_demo_says_that_it_has_no_model_of_such_a_link(name: str) -> None:
    with pytest.raises(ValueError, match="a-b: the scheme"):
        expect_pairs(network(name), "a", "b", cutoff_ns=10**8)
