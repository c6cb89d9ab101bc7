"""Checks text in TOML against a Struct, and reports everything that is wrong in one go.

What it is: the reading half of hardware profiles and network files. It knows nothing of their
content: the Struct says which keys there are, the constraints in its types say what is allowed,
and the description beside a constraint (`Meta(description=...)`) says so in words.
What it is not: it reads no files.

Rules
1. Every problem is one line, `KEY PATH: what is wrong; what was expected`.
2. Reading goes on after a problem, so that one run shows them all (a hundred at most).
3. Text from the file is shown shortened and escaped: it may be anything.
"""

import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T", bound=Struct)

SHOWN_CHARACTERS_MAX: Final = 60  # a value in a message: enough to recognise it, one line at most

PROBLEMS_MAX: Final = 100  # nobody reads more; looking for similar names takes a while each

UNITS: Final = {
    "ns": "nanoseconds",
    "m": "metres",
    "db": "decibels",
    "db_per_km": "decibels per kilometre",
    "nm": "nanometres",
    "rad": "radians",
    "s": "seconds",
    "ps": "picoseconds",
    "ppb": "parts in 10^9",
}


class DocumentError(Exception):
    """`where` cannot be used; `problems` says why, a line each."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.where = where
        self.problems = list(problems)
        super().__init__("\n  ".join((f"{where}:", *self.problems)))


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises `ValueError` with a sentence if it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("tables or arrays are nested too deeply") from None


def read_table(raw: object, kind: type[T], path: str, problems: list[str]) -> T | None:
    """The Struct `kind` of a table; None, and lines in `problems`, if it is not one."""
    if not isinstance(raw, dict):
        problems.append(f"{path}: is {shown(raw)}; expected a table")
        return None
    problems_before = len(problems)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    meant = check_keys(raw, list(fields), path, problems)
    values = {}
    for key, field in fields.items():
        if key in raw:
            values[key] = read_value(raw[key], field.type, join(path, key), problems)
        elif field.required and key not in meant:
            problems.append(f"{join(path, key)}: is missing; expected {expected(field.type)}")
    return kind(**values) if len(problems) == problems_before else None


def read_value(raw: object, kind: object, path: str, problems: list[str]) -> object:
    """`raw` as the constrained type `kind`; a line in `problems` if it is not one."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        problems.append(f"{path}: {shown(raw)} is not allowed; expected {expected(kind)}")
        return None


def check_keys(raw: dict[str, Any], known: list[str], path: str, problems: list[str]) -> set[str]:
    """A line for each key that is not `known`; the known keys that were probably meant."""
    meant = set()
    for key in raw:
        if key in known:
            continue
        if len(problems) >= PROBLEMS_MAX:
            break
        similar = _other_unit(key, known)
        if similar is not None:
            unit = UNITS[unit_of(similar) or ""]
            hint = f"this value is given in {unit}: expected `{similar}`"
        else:
            similar = nearest(key, known)
            hint = f"did you mean `{similar}`?" if similar else f"expected one of {listed(known)}"
        if similar:
            meant.add(similar)
        problems.append(f"{join(path, shown_key(key))}: unknown key; {hint}")
    return meant


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that looks most like `word`, if any does."""
    matches = get_close_matches(word[:SHOWN_CHARACTERS_MAX], known, n=1)
    return matches[0] if matches else None


def unit_of(key: str) -> str | None:
    """The unit a key ends in (`length_m` -> `m`), the longest first."""
    units = sorted(UNITS, key=len, reverse=True)
    return next((unit for unit in units if key.endswith("_" + unit)), None)


def _other_unit(key: str, known: list[str]) -> str | None:
    """The known key of the same quantity in its right unit: `length_km` or `length`."""
    for candidate in known:
        unit = unit_of(candidate)
        if unit is None:
            continue
        stem = candidate.removesuffix("_" + unit)
        if key == stem or (key.startswith(stem + "_") and "_" not in key[len(stem) + 1 :]):
            return candidate
    return None


def expected(kind: object) -> str:
    """What a type allows, in words: its description, else the type's own name."""
    for meta in getattr(kind, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return expected(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "one of " + listed(get_args(kind))
    return {"bool": "true or false", "str": "a text", "float": "a number"}.get(
        getattr(kind, "__name__", ""), "another kind of value"
    )


def listed(words: Iterable[object]) -> str:
    """Words as a list for a sentence."""
    return ", ".join(f'"{word}"' for word in words)


def shown(value: object) -> str:
    """A value from the file, short enough for a message."""
    match value:
        case dict():
            text = "a table"
        case list():
            text = "[" + ", ".join(shown(item) for item in value[:5]) + "]"
        case bool():
            text = "true" if value else "false"
        case str():
            text = ascii(value[:SHOWN_CHARACTERS_MAX])
        case int() if abs(value) > 10**SHOWN_CHARACTERS_MAX:
            text = "an integer too long to show"
        case _:
            text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "..."


def shown_key(key: str) -> str:
    """A key from the file: as it is when it is a plain word, else escaped and shortened."""
    return key if key.isidentifier() and len(key) <= SHOWN_CHARACTERS_MAX else shown(key)


def join(path: str, key: str) -> str:
    """The path of `key` in the table at `path` (empty: the whole file)."""
    return f"{path}.{key}" if path else key
