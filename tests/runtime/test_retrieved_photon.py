"""Links of scheme retrieved-photon: from the file to measured pairs, and what storage costs."""

import math
from typing import Any

import numpy as np
import pytest

from qstack.physical.hardware import LinkHardware
from qstack.physical.prediction import link_capability
from qstack.physical.profiles import load_packaged_profile
from qstack.physical.retrieved_photon import RetrievedPhotonEquipment
from qstack.quantum.bell import bell_state, fidelity
from qstack.runtime.network_file import Network
from tests.runtime.agreement import assert_measured_pairs_agree
from tests.runtime.test_network_file import link, node, parsed, problems_of

NUMBERS: dict[str, object] = {
    "wavelength_nm": 1550, "pair_efficiency": 0.5, "pair_fidelity": 0.98, "storage_ns": 20_000,
    "path_efficiency": 0.3, "dark_count_probability": 1e-6, "visibility": 0.93,
    "number_resolving": "false",
}  # fmt: skip
ION = load_packaged_profile("ion-projected")


def retrieved(
    changes: dict[str, object] | None = None, memory: str = '"cold-atom-memory"', **lines: object
) -> str:
    """A link with its table, values as given or left out (None)."""
    fields: dict[str, object] = {"scheme": '"retrieved-photon"', "length_m": 20_000}
    text = link("a", "b", **(fields | lines)) + "[link.retrieved_photon]\n"
    text += f"memory = {memory}\n" if memory else ""
    for key, value in (NUMBERS | (changes or {})).items():
        if value is not None:
            text += f'[link.retrieved_photon.{key}]\nvalue = {value}\nsource = "s"\n'
            text += 'mark = "assumed"\n'
    return text


def network(changes: dict[str, object] | None = None, **more: Any) -> Network:
    return parsed(
        node("a", "ion-projected"), node("b", "ion-projected"), retrieved(changes, **more)
    )


def hardware(**changes: object) -> LinkHardware:
    return network({**changes}).links["a-b"]


PERFECT: dict[str, object] = {
    "pair_efficiency": 1.0, "pair_fidelity": 1.0, "path_efficiency": 1.0, "storage_ns": 0,
    "dark_count_probability": 0.0, "visibility": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("visibility", [1.0, 0.8])
@pytest.mark.parametrize("storage_ns", [0, 50_000, 150_000])
def test_success_and_fidelity_are_those_of_the_closed_form(
    visibility: float, storage_ns: int
) -> None:
    """P = eta_1 eta_2 / 2 and F from (1 + V)/2 without dark counts; the memory's F to each half."""
    found = hardware(**(PERFECT | {"visibility": visibility, "storage_ns": storage_ns})).herald(
        ION, ION
    )
    eta = 0.9 * math.exp(-((storage_ns / 1e5) ** 2)) * 10**-0.2
    assert found.probability == pytest.approx(eta**2 / 2, rel=1e-9)
    weight = ((4 * 0.99 - 1) / 3) ** 2
    ideal = (1 + visibility) / 2
    assert fidelity(found.state, 1, 0) == pytest.approx(weight * ideal + (1 - weight) / 4)
    assert fidelity(found.state_minus, 1, 1) == pytest.approx(weight * ideal + (1 - weight) / 4)


def test_a_warm_vapour_loses_by_its_own_law_and_modes_are_tried_one_after_another() -> None:
    cold, warm = (
        network(memory=name).links["a-b"].herald(ION, ION).probability
        for name in ('"cold-atom-memory"', '"warm-vapour-memory"')
    )
    ratio = (0.5 * math.exp(-20 / 160) / (0.9 * math.exp(-0.04))) ** 2
    assert warm / cold == pytest.approx(ratio, rel=1e-3)
    link_hardware = hardware()
    assert isinstance(link_hardware.equipment, RetrievedPhotonEquipment)
    assert link_hardware.equipment.train_ns == 1000 + 20_000
    keep = link_hardware.cycle_ns("keep", ION, ION)
    assert keep == ION.t_init_ns + 21_000 + 2 * link_hardware.arm_ns("a")
    assert link_hardware.herald_back_ns("a") == 21_000 + 2 * link_hardware.arm_ns("a")


def test_a_node_predicts_what_the_station_does() -> None:
    net = network()
    (option,) = link_capability(net.world, "a", net.links["a-b"]).options
    found = net.links["a-b"].herald(ION, ION)
    assert option.probability == pytest.approx(found.probability)
    assert option.bell_probabilities[0] == pytest.approx(fidelity(found.state, 1, 0), abs=0.2)
    assert np.allclose(found.state[0, 0], bell_state(1, 0)[0, 0])


def test_where_numbers_come_from_is_said_and_not_in_the_digest() -> None:
    texts = [retrieved(), retrieved().replace('"s"', '"t"'), retrieved({"storage_ns": 10})]
    built = [parsed(node("a"), node("b"), text) for text in texts]
    assert built[0].digest == built[1].digest != built[2].digest
    assert {"a-b.storage_ns", "a-b.memory.retrieval_decay_s"} <= set(built[0].assumed)


BAD = {
    "no table": (
        link("a", "b", scheme='"retrieved-photon"'),
        "link[0].retrieved_photon: is missing; expected a table [link.retrieved_photon]",
    ),
    "another scheme": (
        retrieved(scheme='"double-click"'),
        'link[0].retrieved_photon: is not for a link of scheme "double-click"; expected none',
    ),
    "no memory": (
        retrieved(memory=""),
        "link[0].retrieved_photon.memory: is missing; expected the name of a packaged profile",
    ),
    "a number for a memory": (
        retrieved(memory="3"),
        "link[0].retrieved_photon.memory: 3 is not allowed; expected the name of a packaged",
    ),
    "a node for a memory": (
        retrieved(memory='"bench"'),
        "link[0].retrieved_photon.memory: 'bench' is of kind \"node\"; expected a profile of a mem",
    ),
    "no such memory": (
        retrieved(memory='"cold-atoms-memory"'),
        "link[0].retrieved_photon.memory: 'cold-atoms-memory': no profile 'cold-atoms-memory'",
    ),
    "a number left out": (
        retrieved({"pair_fidelity": None}),
        "link[0].retrieved_photon.pair_fidelity: is missing; expected { value = ..., source = ..., "
        "mark = ... } with a fidelity, 0.25 to 1",
    ),
    "stored until nothing is left": (
        retrieved({"storage_ns": 10_000_000}),
        "link[0].ends: an attempt succeeds with a probability of",
    ),
    "light that fibre swallows": (
        retrieved({"wavelength_nm": 780}),
        "link[0].length_m: photons of 780 nm lose 70 dB on 20000 m of fibre; expected light in a "
        "telecom band (retrieved_photon.wavelength_nm)",
    ),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD.keys())
def test_a_link_that_cannot_be_is_told_what_was_expected(text: str, problem: str) -> None:
    if problem.endswith("probability of"):  # without dark counts nothing is left at all
        text = text.replace("value = 1e-06", "value = 0.0")
    problems = problems_of(node("a"), node("b"), text)
    assert any(line.startswith(problem) for line in problems), problems


@pytest.mark.parametrize("basis", ["X", pytest.param("Z", marks=pytest.mark.soak)])
def test_pairs_measured_end_to_end_agree_as_the_link_s_state_says(basis: Any) -> None:
    assert_measured_pairs_agree(network(), basis)
