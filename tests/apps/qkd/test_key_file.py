"""A key on the disk: whole, private, or not there at all."""

import errno
import os
import shutil
import stat
import sys
from subprocess import run

import msgspec
import pytest

from qstack.apps.qkd import key_file
from qstack.apps.qkd.events import Key
from qstack.apps.qkd.key_file import KeyFile, KeyFileError
from tests.apps.qkd.world import World

KEY: Key = World(seed=3).run().keys["alice"]
BITS = KEY.metadata.key_bits


def test_the_key_alone_is_in_the_file_and_what_is_known_of_it_beside_it(tmp_path):
    with KeyFile(tmp_path / "k", BITS + 1000) as keys:
        keys.store(KEY)
    assert (tmp_path / "k").read_bytes() == KEY.secret
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    known = msgspec.json.decode((tmp_path / "k.json").read_bytes())
    assert known["id"] == KEY.metadata.id.hex()
    assert known["origin"] == "emulated"
    assert known["figures"]["leak_bits"] > 0
    assert KEY.secret[:4].hex() not in (tmp_path / "k.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.json"]


def test_nothing_is_left_of_a_key_that_was_not_made(tmp_path):
    with KeyFile(tmp_path / "k", BITS):
        (hidden,) = (p for p in tmp_path.iterdir() if ".json" not in p.name)
        assert stat.S_IMODE(hidden.stat().st_mode) == 0o600
        assert not any(hidden.read_bytes())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["k", "k.json"])
def test_nothing_that_exists_is_overwritten(tmp_path, name):
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(KeyFileError, match="no key is overwritten"):
        KeyFile(tmp_path / "k", BITS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_of_two_runs_for_one_file_the_second_to_end_has_no_key(tmp_path):
    with KeyFile(tmp_path / "k", BITS) as keys:
        (tmp_path / "k").write_bytes(b"precious")
        with pytest.raises(KeyFileError, match="no key is overwritten"):
            keys.store(KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(KeyFileError, match="No such file or directory"):
        KeyFile(tmp_path / "missing" / "k", BITS)


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "fsync", "rename"])
@pytest.mark.parametrize("time", [1, 2])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, call, time):
    count = 0
    real = getattr(os, call)

    def fail(*arguments):
        nonlocal count
        count += 1
        if count == time:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with KeyFile(tmp_path / "k", BITS) as keys:
        monkeypatch.setattr(key_file.os, call, fail)
        with pytest.raises(KeyFileError, match="No space left on device"):
            keys.store(KEY)
    assert not list(tmp_path.iterdir())


FULL = """
mount -t tmpfs -o size=4k tmpfs "$1" || exit 77
"$2" -c '
import sys
from pathlib import Path
from qstack.apps.qkd.key_file import KeyFile
KeyFile(Path(sys.argv[1]) / "k", 100_000)' "$1"
ls -A "$1"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare here")
def test_a_full_disk_is_found_before_the_run_and_nothing_is_left(tmp_path):
    done = run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "KeyFileError" not in done.stderr and (done.returncode == 77 or "unshare" in done.stderr):
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert "No space left on device" in done.stderr
    assert done.stdout == ""
