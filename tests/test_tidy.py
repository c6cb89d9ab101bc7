"""The house rules a linter does not know; each check can fail, and is shown to.

Checked: lengths of files and functions, names of files, that no state is assigned outside the one
step of its table, that core modules read no clock and draw no chance, and that every package of a
layer has its rooms. Not checked: whether a file holds one idea.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager", "base"}
CORE = ("physical", "link", "network", "transport", "quantum", "wire")
WORLDLY = {"time", "random", "os", "secrets", "uuid", "threading", "socket", "trio", "datetime"}
LAYERS = ("physical", "link", "network", "transport")


def sources(*folders: str) -> list[Path]:
    """Our Python files."""
    places = folders or ("qstack", "tests", "benchmarks", "examples")
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py"))


def too_long_file(text: str) -> bool:
    return len(text.splitlines()) > FILE_LINES_MAX


def too_long_functions(tree: ast.AST) -> list[str]:
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def stray_states(tree: ast.AST) -> list[int]:
    """Lines that assign `.state` outside a function called step or __init__."""
    lines = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name.strip("_") in {
            "step",
            "init",
        }:
            continue
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Attribute) and t.attr == "state" for t in targets):
                lines.append(node.lineno)
    return lines


def iterates_over_a_set(tree: ast.AST) -> list[int]:
    """Lines where a loop runs over a set display or set(): its order is no order."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.For | ast.comprehension):
            continue
        over = node.iter
        is_call = isinstance(over, ast.Call) and isinstance(over.func, ast.Name)
        if isinstance(over, ast.Set) or (is_call and over.func.id in {"set", "frozenset"}):
            lines.append(over.lineno)
    return lines


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short_and_well_named(path):
    text = path.read_text()
    assert not too_long_file(text)
    assert not too_long_functions(ast.parse(text))
    assert path.stem not in FORBIDDEN_NAMES


@pytest.mark.parametrize(
    "path", sources(*(f"qstack/{name}" for name in CORE)), ids=lambda p: str(p.relative_to(ROOT))
)
def test_core_modules_know_only_what_they_are_told(path):
    tree = ast.parse(path.read_text())
    assert not WORLDLY & set(imported(tree))
    assert not iterates_over_a_set(tree)


def machines() -> list[Path]:
    """The files of protocol machines; the fabric is no machine, and has other states."""
    files = sources(*(f"qstack/{name}" for name in LAYERS))
    return [path for path in files if "fabric" not in path.parts]


@pytest.mark.parametrize("path", machines(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_a_step_assigns_a_state(path):
    assert not stray_states(ast.parse(path.read_text()))


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_the_same_rooms(layer):
    folder = ROOT / "qstack" / layer
    wanted = {"service.py", "machine.py", "params.py", "README.md"}
    assert wanted <= {path.name for path in folder.iterdir()}
    assert list(folder.glob("*_states.py"))
    # The physical layer's peer is its station: what they say is the device interface.
    assert (folder / ("device.py" if layer == "physical" else "messages.py")).exists()
    assert len((folder / "README.md").read_text().splitlines()) <= 80


def test_nothing_is_put_off():
    words = ("TO" + "DO", "FIX" + "ME", "Not" + "ImplementedError")
    for path in sources():
        text = path.read_text()
        assert not [word for word in words if word in text], path


def test_the_checks_can_fail():
    long_function = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX
    assert too_long_functions(ast.parse(long_function)) == ["f"]
    assert too_long_file("x\n" * (FILE_LINES_MAX + 1))
    assert set(imported(ast.parse("import time\nfrom os import path"))) == {"time", "os"}
    assert stray_states(ast.parse("def g(a):\n    a.state = 1")) == [2]
    assert not stray_states(ast.parse("def step(a):\n    a.state = 1"))
    assert iterates_over_a_set(ast.parse("for x in {1, 2}:\n    pass")) == [1]
