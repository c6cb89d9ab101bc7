"""Drivers by name: what a network file may say, and what is told of what cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qstack.physical.drivers.setup import DriverError
from qstack.physical.drivers.template import TemplateDevice
from qstack.physical.emulated import EmulatedDevice
from qstack.runtime import drivers
from qstack.runtime.compose import compose
from qstack.runtime.drivers import installed_drivers, load_driver, make_device, read_files
from qstack.runtime.network_file import (
    Network,
    NetworkFileError,
    load_packaged_network,
    packaged_network,
    parse_network,
)


def with_drivers(alice: str, bob: str = "", folder: Path | None = None) -> Network:
    """The packaged pair, with lines for its nodes."""
    text = packaged_network("pair")
    for name, lines in (("alice", alice), ("bob", bob)):
        text = text.replace(f'name = "{name}"\n', f'name = "{name}"\n{lines}\n')
    return parse_network(text, where="test", folder=folder)


def problems(alice: str, bob: str = "") -> list[str]:
    with pytest.raises(NetworkFileError) as raised:
        with_drivers(alice, bob)
    return raised.value.problems


def test_without_a_word_the_driver_is_the_emulated_one() -> None:
    network = with_drivers("")
    assert [node.driver for node in network.nodes.values()] == ["emulated", "emulated"]
    assert network.digest == with_drivers('driver = "emulated"').digest


def test_the_digest_covers_drivers_and_options_but_not_where_the_file_is() -> None:
    both = [
        with_drivers('driver = "template"', f'driver = "template"\ndriver_options = {options}')
        for options in ("{}", "{ gain = 3 }")
    ]
    digests = [with_drivers("").digest, *(network.digest for network in both)]
    assert len(set(digests)) == 3
    assert with_drivers("", folder=Path("/one")).digest == digests[0]


def test_an_unknown_driver_is_refused_with_what_is_installed() -> None:
    (problem,) = problems('driver = "replya"', 'driver = "replay"')
    assert problem == "node[0].driver: no driver is called 'replya'; did you mean \"replay\"?"
    (problem,) = problems('driver = "xyz"', 'driver = "replay"')
    assert '"emulated", "replay", "template"' in problem


def test_ends_that_would_never_meet_are_refused() -> None:
    (problem,) = problems('driver = "template"')
    assert problem.startswith("link[0].ends: alice has the driver 'template', bob 'emulated'")


def test_options_that_cannot_be_are_refused() -> None:
    (problem,) = problems("driver_options = { gain = 3 }")
    assert "the emulated device has none" in problem
    (problem,) = problems(
        'driver = "replay"\ndriver_options = { heralds_file = 3 }', 'driver = "replay"'
    )
    assert problem.startswith("node[0].driver_options.heralds_file: 3 is not allowed")


def test_an_installed_driver_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "of-a-lab", "qstack.physical.drivers.template:TemplateDevice"

    monkeypatch.setattr(drivers, "entry_points", lambda group: [Entry()])
    assert installed_drivers()["of-a-lab"] == Entry.value
    network = with_drivers('driver = "of-a-lab"', 'driver = "of-a-lab"')
    node = compose(network, "alice", bytes(8), 1, None)
    assert isinstance(node.machines["physical"]._device, TemplateDevice)


def make(driver: str, folder: Path | None, **options: Any) -> Any:
    return make_device(
        driver,
        node="alice",
        world=load_packaged_network("pair").world,
        rng=np.random.default_rng(1),
        options=options,
        folder=folder,
    )


def test_a_driver_is_made_with_its_options_and_what_is_in_its_files(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"of a lab")
    device = make("template", tmp_path, notes_file="notes", gain=3)
    assert device.setup.options == {"notes_file": "notes", "gain": 3}
    assert device.setup.files == {"notes_file": b"of a lab"}
    assert isinstance(make("emulated", None), EmulatedDevice)


def test_what_cannot_be_read_or_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DriverError, match=r"heralds_file: 'none' cannot be read \(No such file"):
        make("replay", tmp_path, heralds_file="none")
    with pytest.raises(DriverError, match="is a path, but from nowhere"):
        make("replay", None, heralds_file="none")
    with pytest.raises(DriverError, match="nothing to replay"):
        make("replay", None)
    with pytest.raises(DriverError, match="no driver is called"):
        make("nothing", None)
    monkeypatch.setattr(drivers, "FILE_BYTES_MAX", 3)
    (tmp_path / "long").write_bytes(b"1234")
    with pytest.raises(DriverError, match="has more than 3 bytes"):
        read_files("test", {"tags_file": str(tmp_path / "long")}, None)


def test_a_driver_of_a_module_is_found_by_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    two = "from qstack.physical.drivers.template import TemplateDevice\n"
    two += "class One(TemplateDevice): pass\nclass Two(TemplateDevice): pass\n"
    for name, text in (("lab_two", two), ("lab_none", ""), ("lab_bad", "1 / 0")):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    assert load_driver("qstack.physical.drivers.template") is TemplateDevice
    assert load_driver("lab_two:Two").__name__ == "Two"
    for place, words in (
        ("lab_two", 'expected one device class in it; there are "One", "Two"'),
        ("lab_two:Three", "the module has no class or function 'Three'; it has"),
        ("lab_none", "there is none"),
        ("lab_none:One", "has no class or function 'One'"),
        ("lab_bad", "it raised ZeroDivisionError: division by zero"),
        ("lab_missing", "cannot be imported: No module named 'lab_missing'"),
    ):
        with pytest.raises(DriverError) as raised:
            load_driver(place)
        assert words in str(raised.value)
