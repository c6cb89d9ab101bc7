"""NETWORK.toml: links with a source of photon pairs, good and bad."""

import pytest

from qstack.physical.models.pair_source import error_rate, gain
from qstack.runtime.network_file import load_packaged_network
from tests.runtime.test_network_file import link, node, parsed, problems_of

SOURCE = {
    "wavelength_nm": 1550, "slot_rate_hz": 100_000_000, "pair_parameter": 0.01,
    "detector_efficiency": 0.8, "background_probability": 2e-6, "misalignment": 0.01,
}  # fmt: skip


def pair_link(source: dict[str, object] | None = None, **lines: object) -> str:
    """A photon-pair link, values of its source as given or left out (None)."""
    text = link("a", "b", **({"scheme": '"spdc"', "length_m": 35_000} | lines))
    for key, value in (SOURCE | (source or {})).items():
        if value is not None:
            text += f'[link.pair_source.{key}]\nvalue = {value}\nsource = "s"\nmark = "assumed"\n'
    return text


def test_the_pair_link_of_metro_is_that_of_the_physics() -> None:
    metro = load_packaged_network("metro")
    hardware = metro.links["alice-bob"]
    source = hardware.pair_source()
    assert source.efficiencies == pytest.approx((0.25, 0.25), rel=1e-3)
    assert hardware.arms_m == (17_500.0, 17_500.0)
    assert gain(source) * 1e8 == pytest.approx(1.27e5, rel=0.005)
    assert error_rate(source) == pytest.approx(0.0173, abs=1e-4)
    assert "alice-bob.pair_parameter" in metro.assumed
    assert hardware.source is not None
    assert {each.key for each in hardware.source.sources} == set(SOURCE)


def test_a_pair_link_needs_no_like_nodes_and_no_memories_that_shine_in_its_fibre() -> None:
    network = parsed(node("a", "nv-near-term"), node("b", "ion-published"), pair_link())
    hardware = network.links["a-b"]
    assert (hardware.kinds, hardware.attenuation_db_per_km) == (("measure",), 0.2)
    longer = parsed(node("a"), node("b"), pair_link({"wavelength_nm": 1310}))
    assert longer.links["a-b"].attenuation_db_per_km == pytest.approx(0.35)


def test_where_the_numbers_of_a_source_come_from_is_not_in_the_digest_and_they_are() -> None:
    texts = [pair_link(), pair_link().replace('"s"', '"t"'), pair_link({"misalignment": 0.02})]
    digests = [parsed(node("a"), node("b"), text).digest for text in texts]
    assert digests[0] == digests[1] != digests[2]


DETECTORS = {
    "dead_time_ns": 50, "jitter_ps": 40, "gate_ps": 800, "afterpulse_probability": 0.02,
    "afterpulse_decay_ns": 1000, "first_end_share": 0.9, "second_end_share": 0.8,
}  # fmt: skip


def detecting(**values: object) -> str:
    """A photon-pair link with a table of detectors, values as given or left out (None)."""
    text = pair_link(values.pop("link", None))
    for key, value in (DETECTORS | values).items():
        if value is not None:
            text += f'[link.detectors.{key}]\nvalue = {value}\nsource = "s"\nmark = "assumed"\n'
    return text


def test_detectors_are_read_and_turn_with_the_ends_of_the_link() -> None:
    straight = parsed(node("a"), node("b"), detecting())
    kind = straight.links["a-b"].detectors
    assert kind is not None
    assert (kind.dead_slots(10), kind.shares) == (4, ((1.0, 0.9), (1.0, 0.8)))
    assert "a-b.dead_time_ns" in straight.assumed
    turned = parsed(node("a"), node("b"), detecting().replace('["a", "b"]', '["b", "a"]'))
    of_turned = turned.links["a-b"].detectors
    assert of_turned is not None
    assert of_turned.shares == ((1.0, 0.8), (1.0, 0.9))
    ideal = parsed(node("a"), node("b"), pair_link())
    assert len({straight.digest, turned.digest, ideal.digest}) == 3


BAD_SOURCES = {
    "a station without trains": (
        link("a", "b", station_detectors="{}"),
        "link[0].station_detectors: no train of modes meets in the station of scheme "
        '"double-click"; expected none',
    ),
    "detectors of a heralded link": (
        link("a", "b", detectors="{}"),
        'link[0].detectors: a link of scheme "double-click" has no receivers; expected none',
    ),
    "a gate longer than the slot": (
        detecting(gate_ps=20_000),
        "link[0].detectors.gate_ps.value: 20000 is longer than the slot of 10000 ps; expected a "
        "part of it",
    ),
    "jitter from slot to slot": (
        detecting(jitter_ps=3000, gate_ps=5000),
        "link[0].detectors.jitter_ps.value: 3000 puts 0.01 of the clicks into another slot; "
        "expected at most 1e-06: a shorter gate, or longer slots",
    ),
    "a detector that sees nothing": (
        detecting(second_end_share=0),
        "link[0].detectors.second_end_share.value: 0 is not allowed; expected a share, above 0, at "
        "most 1",
    ),
    "no afterpulses said": (
        detecting(afterpulse_probability=None),
        "link[0].detectors.afterpulse_probability: is missing; expected { value = ..., source = "
        "..., mark = ... } with a probability, 0 to 0.2",
    ),
    "a source on a heralded link": (
        pair_link(scheme='"double-click"'),
        'link[0].pair_source: a link of scheme "double-click" has no source; expected none, or '
        'scheme = "spdc"',
    ),
    "no source on a pair link": (
        link("a", "b", scheme='"spdc"'),
        "link[0].pair_source: is missing; expected a table [link.pair_source] with the source and "
        'receivers of a link of scheme "spdc"',
    ),
    "no table": (
        link("a", "b", scheme='"spdc"', pair_source=3),
        "link[0].pair_source: 3 is not allowed; expected a table [link.pair_source]: the source "
        "and its receivers, or the name or path of a profile of a source",
    ),
    "a number left out": (
        pair_link({"misalignment": None}),
        "link[0].pair_source.misalignment: is missing; expected { value = ..., source = ..., "
        "mark = ... } with a probability, 0 to 0.5",
    ),
    "no light": (
        pair_link({"pair_parameter": 0.0}),
        "link[0].pair_source.pair_parameter.value: 0.0 is not allowed; expected half of the mean "
        "pairs of a slot, above 0 to 1",
    ),
    "half a slot": (
        pair_link({"slot_rate_hz": 0.5}),
        "link[0].pair_source.slot_rate_hz.value: 0.5 is not allowed; expected a whole number of "
        "slots per second, 1 to 10^9",
    ),
    "slots between nanoseconds": (
        pair_link({"slot_rate_hz": 300_000_000}),
        "link[0].pair_source.slot_rate_hz.value: the slots of 300000000 Hz do not begin at whole "
        "nanoseconds; expected 10^9 divided by a whole number, such as 100000000",
    ),
    "nothing ever arrives": (
        pair_link({"detector_efficiency": 5e-324}),
        "link[0].pair_source.detector_efficiency.value: a slot succeeds with a probability of 0; "
        "expected at least 1e-18: see the receivers and the loss in the arms",
    ),
    "both receivers never click together": (
        pair_link({"detector_efficiency": 1e-12, "background_probability": 0}),
        "link[0].pair_source.detector_efficiency.value: a slot succeeds with a probability of "
        "4.1e-27; expected at least 1e-18: see the receivers and the loss in the arms",
    ),
    "more clicks than can be followed": (
        pair_link({"slot_rate_hz": 10**9, "pair_parameter": 0.5}),
        "link[0].pair_source.slot_rate_hz.value: the receiver at a detects 2.8e+08 photons a "
        "second; expected at most 1e+07: fewer slots, or a lower pair_parameter",
    ),
    "a bare value": (
        link("a", "b", scheme='"spdc"') + "[link.pair_source]\nslot_rate_hz = 5\n",
        "link[0].pair_source.slot_rate_hz: is a bare value; expected { value = ..., source = ..., "
        "mark = ... } with a whole number of slots per second, 1 to 10^9",
    ),
    "a wrong unit": (
        pair_link({"wavelength_nm": None, "wavelength_um": 1.55}),
        "link[0].pair_source.wavelength_um: unknown key; this value is given in nanometres: "
        "expected `wavelength_nm`",
    ),
    "fibre that swallows it": (
        pair_link(length_m=600_000),
        "link[0].length_m: photons lose 120 dB on 600000 m of fibre; expected at most 100 dB: a "
        "shorter link, with repeaters between",
    ),
    "visible light": (
        pair_link({"wavelength_nm": 780}),
        "link[0].length_m: photons of 780 nm lose 122 dB on 35000 m of fibre; expected a source "
        "in a telecom band (pair_source.wavelength_nm), or at most 11429 m",
    ),
    "no arm": (
        pair_link(station=34_999.9),
        "link[0].station: 34999.9 m leaves less than 1 ns to one end; expected 0.20 m of fibre or "
        "more to either, for every delay is at least 1 ns",
    ),
}


@pytest.mark.parametrize(("text", "problem"), BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
def test_a_pair_link_that_cannot_be_is_told_what_was_expected(text: str, problem: str) -> None:
    assert problem in problems_of(node("a"), node("b"), text)
