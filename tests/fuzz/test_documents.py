"""Mutated and made-up network files and profiles.

Whatever the text: the outcome is a `Network` (a `Profile`) that can be used, or a
`NetworkFileError` (`ProfileError`) whose lines each name a place and what was expected, soon.
"""

import math
import re
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstack.physical.document import PROBLEMS_MAX, DocumentError
from qstack.physical.profile import ProfileError, parse_profile
from qstack.physical.profiles import packaged_profile, packaged_profiles
from qstack.runtime.compose import lookahead_ns
from qstack.runtime.network_file import (
    NetworkFileError,
    load_network,
    packaged_network,
    packaged_networks,
    parse_network,
)
from qstack.runtime.virtual import VirtualNetwork
from tests.fuzz import tally
from tests.fuzz.mutator import mutated, named

NETWORKS = [packaged_network(name).encode() for name in packaged_networks()]
PROFILES = [packaged_profile(name).encode() for name in packaged_profiles()]
OF_THE_FILE = r"byte \d+ is not UTF-8|is too long"
SPENT_S = 2.0  # of processor time, for any one text; a good one takes a hundredth of it
VALUES = (
    "0", "-1", "1", "2", "4096", "4097", "1e300", "1e-300", "5e-324", "inf", "-inf", "nan",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" + "0" * 70,
    "1" + "0" * 5000, "1e400", "0.5", "1.5", "true", '""', '"a"', '"alice"', '"midpoint"',
    '"127.0.0.1:0"', '"[::1]:7"', '"[::]"', '"localhost:99999"', '"x:0000000000"', '"spdc"',
    '"single-click"', '"wall"', '"split"', '"../../etc/passwd"', '"/dev/zero"', '"/dev"',
    '"a\\u0000.toml"', '"' + "p/" * 400 + '"', '"\\u0130"', "[]", "{}", "[[]]", "1979-05-27",
    '["alice", "alice"]', '["alice"]', '["alice", "bob", "r1"]', '[["alice", "bob"]]',
    "1979-05-27T07:32:00Z", "07:32:00", '{ value = 1, source = "s", mark = "published" }',
    '{ value = nan, source = "s", mark = "assumed" }', "{ value = 1 }", "1e15", "1_000_000_000",
)  # fmt: skip
_VALUE = re.compile(rb"(?m)(?<=[=,] )(\[.*?\]|\"[^\"\n]*\"|[0-9a-z_.+-]+)")


def other_values(rng: Random, data: bytes) -> bytes:
    """The same file with some of its values replaced: wrong in what it says, not how."""
    places = list(_VALUE.finditer(data))
    for match in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), key=_last_first):
        value = rng.choice(VALUES).encode()
        data = data[: match.start()] + value + data[match.end() :]
    return data


def _last_first(match: re.Match[bytes]) -> int:
    return -match.start()


def other_lines(rng: Random, data: bytes) -> bytes:
    """Lines left out, doubled, moved and taken from elsewhere."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                del lines[place : place + rng.randint(1, 5)]
            case 1:
                lines[place:place] = lines[place : place + rng.randint(1, 5)]
            case 2:
                lines[place:place] = rng.sample(lines, min(len(lines), 3))
            case _:
                lines.insert(place, rng.choice(VALUES).encode() + b" = 1")
        lines = lines or [b""]
    return b"\n".join(lines)


def changed(rng: Random, corpus: list[bytes]) -> str:
    """A text that is nearly one of the corpus."""
    match rng.randrange(4):
        case 0:
            data = mutated(rng, corpus)
        case 1:
            data = other_lines(rng, rng.choice(corpus))
        case _:
            data = other_values(rng, rng.choice(corpus))
    return data.decode("utf-8", errors="replace")


def use_network(text: str, folder: Path | None = None) -> str:
    """Parse it, and what every process does with a network."""
    began_s = time.process_time()
    try:
        network = parse_network(text, where="fuzz", folder=folder)
    except NetworkFileError as error:
        outcome = judge_problems(error)
    else:
        assert len(network.digest) == 32
        assert lookahead_ns(network) >= 1
        for source in network.nodes:
            for target in network.reachable_from(source):
                assert network.path_delay_ns(source, target) >= 0
        assert network.world.nodes.keys() == network.nodes.keys()
        VirtualNetwork(network, seed=1).run_until(1_000_000)
        outcome = "good"
    assert time.process_time() - began_s < SPENT_S
    return outcome


def use_profile(text: str) -> str:
    """Parse it."""
    began_s = time.process_time()
    try:
        profile = parse_profile(text, where="fuzz")
    except ProfileError as error:
        outcome = judge_problems(error)
    else:
        assert not math.isnan(profile.coupling)
        outcome = "good"
    assert time.process_time() - began_s < SPENT_S
    return outcome


def judge_problems(error: DocumentError) -> str:
    """Each is a line that names a place, or what is wrong with the file as a whole."""
    assert error.problems
    assert len(error.problems) <= 2 * PROBLEMS_MAX + 10
    for line in error.problems:
        assert "\n" not in line
        assert ": " in line or re.match(OF_THE_FILE, line)
        assert len(line) < 3000
    return "not TOML" if error.problems[0].startswith("is not TOML") else "problems"


def run(seed: int, inputs: int, folder: Path) -> dict[str, int]:
    """So many texts, three network files to a profile; how often what came out."""
    rng = Random(seed)
    outcomes: dict[str, int] = {}
    for number in range(inputs):
        is_profile = rng.random() < 0.25
        text = changed(rng, PROFILES if is_profile else NETWORKS)
        with named(seed, number, text.encode()):
            where = folder if rng.random() < 0.5 else None
            outcome = use_profile(text) if is_profile else use_network(text, where)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_mutated_files_are_networks_or_say_what_is_wrong(tmp_path: Path) -> None:
    outcomes = run(seed=21, inputs=600, folder=tmp_path)
    assert outcomes.keys() == {"good", "problems", "not TOML"}
    assert min(outcomes.values()) > 5


def test_files_that_are_no_text_at_all_are_refused(tmp_path: Path) -> None:
    rng = Random(22)
    path = tmp_path / "network.toml"
    for number in range(100):
        data = mutated(rng, NETWORKS)
        path.write_bytes(data)
        with named(22, number, data):
            try:
                load_network(path)
            except NetworkFileError as error:
                judge_problems(error)


TEXTS = st.text(max_size=12) | st.sampled_from(["alice", "bob", "pair", "127.0.0.1:0", "lockstep"])
SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(), TEXTS, st.sampled_from([0, 1, 4, 10_000, 0.5])
)
KEYS = st.sampled_from(
    [
        "name", "clock", "address", "profile", "memory", "layout", "ends", "length_m", "length_km",
        "scheme", "station", "pair_source", "midpoint_source", "absorptive_memory", "cutoff_ns",
        "restart_ns", "time_scale", "group_index",
        "attenuation_db_per_km", "extra_loss_db", "value", "source", "mark", "wavelength_nm",
    ]
) | st.text(max_size=5)  # fmt: skip
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
GOOD: dict[str, dict[str, Any]] = {
    "network": {"name": "pair", "clock": "lockstep"},
    "fabric": {"address": "127.0.0.1:0"},
    "node": {"name": "alice", "address": "127.0.0.1:0", "profile": "ion-published", "memory": 2},
    "link": {"ends": ["alice", "bob"], "length_m": 1000.0, "scheme": "double-click"},
}


@st.composite
def tables(draw: st.DrawFn, kind: str) -> Any:
    """A good table with some of its values replaced, left out, or added."""
    table = {**GOOD[kind], **draw(st.dictionaries(KEYS, ANY, max_size=2))}
    if kind == "node" and draw(st.booleans()):
        table["name"] = "bob"
    for key in draw(st.lists(st.sampled_from(sorted(table)), max_size=1)):
        del table[key]
    return table if draw(st.integers(0, 9)) else draw(ANY)


DOCUMENTS = st.fixed_dictionaries(
    {
        "network": tables("network"),
        "fabric": tables("fabric"),
        "node": st.lists(tables("node"), max_size=4) | ANY,
        "link": st.lists(tables("link"), max_size=3) | ANY,
    },
    optional={"extra": ANY},
)


def toml(value: Any) -> str:
    """A value in TOML's notation, tables in line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{_quoted(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case float() if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    clean = text.encode("utf-8", errors="replace").decode()
    escaped = (f"\\U{ord(c):08x}" if c in '"\\' or not c.isprintable() else c for c in clean)
    return '"' + "".join(escaped) + '"'


def document(tables_: dict[str, Any]) -> str:
    return "\n".join(f"{_quoted(key)} = {toml(value)}" for key, value in tables_.items())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(DOCUMENTS)
def test_made_up_documents_are_networks_or_say_what_is_wrong(made_up: dict[str, Any]) -> None:
    use_network(document(made_up))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(KEYS, ANY, max_size=12))
def test_made_up_profiles_say_what_is_wrong(made_up: dict[str, Any]) -> None:
    assert use_profile(document(made_up)) != "good"


@pytest.mark.soak
@pytest.mark.parametrize("_part", range(8))  # each within the limit of one test, on a busy machine
@settings(max_examples=500, deadline=None, database=None)
@given(DOCUMENTS)
def test_many_made_up_documents(_part: int, made_up: dict[str, Any]) -> None:
    use_network(document(made_up))
    tally.add("documents", 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2000, 2010))
def test_many_mutated_files(seed: int, tmp_path: Path) -> None:
    run(seed, inputs=2000, folder=tmp_path)
    tally.add("documents", 2000)
