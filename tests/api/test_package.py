"""What `import qstack` offers, and what it does not load."""

import subprocess
import sys

import pytest

import qstack
import qstack.sync
from qstack import api


def test_the_public_names_are_those_of_the_interface() -> None:
    for name in set(qstack.__all__) - {"sync"}:
        assert getattr(qstack, name) is getattr(api, name)
    assert qstack.sync.open_node is not qstack.open_node
    with pytest.raises(AttributeError, match="no attribute 'open_nodes'"):
        getattr(qstack, "open_nodes")  # noqa: B009


def test_the_twin_has_every_name_of_the_original() -> None:
    for kind in ("Node", "Qubit", "EprSocket", "QubitSocket", "QubitStream", "MessageStream"):
        original, twin = vars(getattr(api, kind)), dir(getattr(qstack.sync, kind))
        inside = {"start_timer", "take_qubit", "call", "pair", "require", "end", "revive"}
        wanted = {name for name in original if not name.startswith("_")} - inside
        assert wanted <= set(twin), kind


def test_importing_a_machine_loads_neither_trio_nor_numpy() -> None:
    program = (
        "import sys, qstack, qstack.machine, qstack.transport.service;"
        "sys.exit(bool({'trio', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
