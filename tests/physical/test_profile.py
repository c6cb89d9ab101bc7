"""Hardware profiles: every packaged one is good, and every bad one says why."""

import tomllib

import pytest

from qstack.physical.document import PROBLEMS_MAX
from qstack.physical.profile import Profile, ProfileError, Provenance, parse_profile
from qstack.physical.profiles import packaged_profile, packaged_profiles

NAMES = packaged_profiles()


def packaged(name: str) -> Profile:
    return parse_profile(packaged_profile(name), where=name)


def problems_of(text: str) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, where="test")
    return caught.value.problems


def with_value(key: str, value: str, name: str = "ion-published") -> str:
    """The packaged profile, one of its values replaced by other TOML."""
    head, _, tail = packaged_profile(name).partition(f"[{key}]\nvalue = ")
    assert tail, f"{name} has no {key}"
    return f"{head}[{key}]\nvalue = {value}\n{tail.partition(chr(10))[2]}"


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_profile_is_good_and_named_like_its_file(name: str) -> None:
    assert packaged(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_packaged_profile_has_a_source_and_a_mark(name: str) -> None:
    profile = packaged(name)
    plain = {"name", "platform", "sources"}
    numbers = {
        key
        for key in Profile.__struct_fields__
        if key not in plain and getattr(profile, key) is not None
    }
    assert set(profile.provenance) == numbers
    assert all(row.source for row in profile.sources)


def test_ion_profile_has_the_published_numbers() -> None:
    ion = packaged("ion-published")
    assert (ion.coupling, ion.visibility, ion.dark_count_probability) == (0.111, 0.89, 1.4e-5)
    assert (ion.t2_s, ion.t_init_ns, ion.readout_ns) == (0.085, 36_000, 1_500_000)
    assert (ion.gate_1q_ns, ion.gate_2q_ns) == (26_600, 107_000)
    assert (ion.gate_1q_depolarising, ion.gate_2q_depolarising) == (0.02, 0.1)
    assert ion.provenance["t2_s"] == Provenance(
        "t2_s", "arXiv:2207.10579, appendix A.6", "published"
    )
    assert not {"t2_s", "visibility", "coupling", "gate_2q_depolarising"} & set(ion.projected)


def test_projected_ion_differs_from_the_published_one_only_in_projected_numbers() -> None:
    published, projected = packaged("ion-published"), packaged("ion-projected")
    changed = {
        key
        for key in Profile.__struct_fields__
        if key not in {"name", "sources"} and getattr(published, key) != getattr(projected, key)
    }
    derived = {"move_depolarising", "decay_law"}
    assert changed == {"t2_s", "gate_2q_depolarising", "visibility"} | derived
    assert set(projected.projected) == changed - derived
    assert derived <= set(projected.assumed)


def test_photon_in_the_fibre_is_the_converted_one_if_there_is_a_converter() -> None:
    assert packaged("ion-published").fibre_nm == 1550
    assert packaged("bench").converted_to_nm is None
    assert packaged("bench").fibre_nm == packaged("bench").wavelength_nm


def test_profiles_can_be_keys_of_a_cache() -> None:
    assert hash(packaged("bench")) == hash(packaged("bench"))


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("visibility", "1.3", "1.3 is not allowed; expected a probability, 0 to 1"),
        ("visibility", "nan", "nan is not allowed; expected a probability, 0 to 1"),
        ("visibility", "true", "true is not allowed; expected a probability, 0 to 1"),
        ("readout_f0", "-0.1", "-0.1 is not allowed; expected a probability, 0 to 1"),
        ("coupling", "0", "0 is not allowed; expected a probability, above 0, at most 1"),
        ("double_excitation", "0.6", "0.6 is not allowed; expected a probability, 0 to 0.5"),
        ("emission_fidelity", "0.2", "0.2 is not allowed; expected a fidelity, 0.25 to 1"),
        ("bright_state_default", "1", ("1 is not allowed; expected a probability above 0 and "
         "below 1")),
        ("wavelength_nm", "1.55e-6", "1.55e-06 is not allowed; expected nanometres, 100 to 20000"),
        ("t_emit_ns", "0", ("0 is not allowed; expected whole nanoseconds, at least 1 and at most "
         "10^12")),
        ("gate_1q_ns", "26.6", "26.6 is not allowed; expected whole nanoseconds, 0 to 10^12"),
        ("t2_s", "-inf", "-inf is not allowed; expected seconds, above 0 (inf: no decay)"),
        ("phase_sigma_rad", "15", "15 is not allowed; expected radians, 0 to 10"),
        ("decay_law", '"linear"', ("'linear' is not allowed; expected one of \"exponential\", "
         '"gaussian"')),
        ("comm_qubits", "0", "0 is not allowed; expected a whole number of qubits, 1 to 4096"),
        ("parallel_links", '"yes"', "'yes' is not allowed; expected true or false"),
        ("coupling_includes", "[1, {}]", ("[1, a table] is not allowed; expected a list of at "
         "most 16 short texts")),
    ],
)  # fmt: skip
def test_value_that_cannot_be_is_refused(key: str, value: str, problem: str) -> None:
    assert problems_of(with_value(key, value)) == [f"{key}.value: {problem}"]


def test_coherence_longer_than_twice_t1_is_refused() -> None:
    assert problems_of(with_value("t1_s", "0.01")) == [
        "t2_s.value: 0.085 s is longer than 2 x t1_s = 0.02 s; expected T2 <= 2 T1"
    ]


def test_infinite_coherence_and_t1_are_allowed() -> None:
    assert parse_profile(with_value("t2_s", "inf"), where="test").t2_s == float("inf")


def test_bare_number_without_source_and_mark_is_refused() -> None:
    whole = packaged_profile("bench")
    table = whole[whole.index("[visibility]") : whole.index("[dark_count_probability]")]
    bare = "visibility = 1.0\n" + whole.replace(table, "")
    assert problems_of(bare) == [
        (
            "visibility: is a bare value; expected { value = ..., source = ..., mark = ... } "
            "with a probability, 0 to 1"
        )
    ]


def test_number_without_a_mark_or_source_is_refused() -> None:
    text = packaged_profile("bench") + '\n[converted_to_nm]\nvalue = 1550\nmark = "guessed"\n'
    assert problems_of(text) == [
        'converted_to_nm.source: is missing; expected where the value comes from, in words',
        ("converted_to_nm.mark: 'guessed' is not allowed; expected one of \"published\", "
        '"recalled", "projected", "assumed"'),
    ]  # fmt: skip


def test_missing_key_is_named_with_what_it_holds() -> None:
    whole = packaged_profile("bench")
    assert problems_of(whole[: whole.index("[parallel_links]")]) == [
        (
            "parallel_links: is missing; expected { value = ..., source = ..., mark = ... } "
            "with true or false"
        )
    ]


def test_key_in_another_unit_is_told_the_right_one() -> None:
    assert problems_of(packaged_profile("bench").replace("[t2_s]", "[t2_ms]")) == [
        "t2_ms: unknown key; this value is given in seconds: expected `t2_s`"
    ]


def test_misspelt_key_is_told_the_nearest() -> None:
    assert problems_of(packaged_profile("bench").replace("[visibility]", "[visbility]")) == [
        "visbility: unknown key; did you mean `visibility`?"
    ]


def test_all_problems_are_reported_in_one_go() -> None:
    text = with_value("visibility", "1.3").replace("[decay_law]", "[decay]")
    text = text.replace('name = "ion-published"', 'name = "Ion Published"')
    found = problems_of(text)
    assert [line.partition(":")[0] for line in found] == ["decay", "name", "visibility.value"]


def test_text_that_is_not_toml_is_refused() -> None:
    assert problems_of("name = ")[0].startswith("is not TOML: ")


def test_deeply_nested_text_is_refused() -> None:
    assert problems_of("x = " + "[" * 100_000)[0].startswith("is not TOML: ")


def test_integer_too_long_to_read_is_refused() -> None:
    assert problems_of("x = " + "9" * 10_000)[0].startswith("is not TOML: ")


def test_integer_too_long_to_show_is_not_shown() -> None:
    assert problems_of(with_value("comm_qubits", "9" * 4000)) == [
        (
            "comm_qubits.value: an integer too long to show is not allowed; expected a "
            "whole number of qubits, 1 to 4096"
        )
    ]


def test_odd_keys_are_shown_escaped_and_shortened() -> None:
    found = problems_of(
        packaged_profile("bench").replace("name =", f'"a\\n{"z" * 200}" = 1\nname =', 1)
    )
    assert found[0].startswith("'a\\nzzz")
    assert len(found[0].partition(": unknown key")[0]) <= 60


def test_flood_of_problems_is_cut() -> None:
    flood = "\n".join(f"key{number} = 1" for number in range(1000))
    assert len(problems_of(flood + "\n" + packaged_profile("bench"))) == PROBLEMS_MAX


def test_error_text_names_the_file_and_every_problem() -> None:
    error = ProfileError("lab.toml", ["one", "two"])
    assert str(error) == "lab.toml:\n  one\n  two"


def test_packaged_profiles_carry_their_units_and_marks_in_the_file() -> None:
    table = tomllib.loads(packaged_profile("ion-projected"))["t2_s"]
    assert set(table) == {"value", "source", "mark"}
