"""A key on the disk: whole, private, or not there at all."""

import errno
import fcntl
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


@pytest.fixture(params=["no name", "hidden"])
def kind(request, monkeypatch):
    """How files are kept until they are stored: the second where the first is not to be had."""
    if request.param == "hidden":
        monkeypatch.setattr(key_file, "_open_without_name", lambda folder: None)
    return request.param


def test_the_key_alone_is_in_the_file_and_what_is_known_of_it_beside_it(tmp_path, kind):
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


def test_nothing_is_left_of_a_key_that_was_not_made(tmp_path, kind):
    with KeyFile(tmp_path / "k", BITS):
        hidden = list(tmp_path.iterdir())
        assert len(hidden) == (2 if kind == "hidden" else 0)
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in hidden)
        assert not any(any(path.read_bytes()) for path in hidden)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from qstack.apps.qkd import key_file
if sys.argv[2] == "hidden":
    key_file._open_without_name = lambda folder: None
keys = key_file.KeyFile(Path(sys.argv[1]) / "k", 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_goes_when_the_same_key_is_begun_again(tmp_path, kind):
    run([sys.executable, "-c", KILLED, str(tmp_path), kind], check=False)
    assert len(list(tmp_path.iterdir())) == (2 if kind == "hidden" else 0)
    with KeyFile(tmp_path / "other", BITS):
        pass
    assert len(list(tmp_path.iterdir())) == (2 if kind == "hidden" else 0)
    with KeyFile(tmp_path / "k", BITS):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_not_left_by_a_killed_process_stays(tmp_path, monkeypatch):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / ".k.1.part").symlink_to("precious")
    (tmp_path / ".k.2.part").mkdir()
    os.mkfifo(tmp_path / ".k.3.part")
    (tmp_path / ".k.x.part").write_bytes(b"")
    (tmp_path / ".k.4.part").write_bytes(b"")
    (tmp_path / ".k.5.part").write_bytes(b"")
    with open(tmp_path / ".k.5.part", "rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        with KeyFile(tmp_path / "k", BITS):
            pass
    left = {".k.1.part", ".k.2.part", ".k.3.part", ".k.5.part", ".k.x.part", "precious"}
    assert {path.name for path in tmp_path.iterdir()} == left
    monkeypatch.setattr(key_file.os, "geteuid", lambda: 4321)  # somebody else
    with KeyFile(tmp_path / "k", BITS):
        pass
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("name", ["k", "k.json"])
def test_nothing_that_exists_is_overwritten(tmp_path, name):
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(KeyFileError, match="no key is overwritten"):
        KeyFile(tmp_path / "k", BITS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_of_two_runs_for_one_file_the_second_to_end_has_no_key(tmp_path, kind):
    with KeyFile(tmp_path / "k", BITS) as keys:
        (tmp_path / "k").write_bytes(b"precious")
        with pytest.raises(KeyFileError, match="no key is overwritten"):
            keys.store(KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(KeyFileError, match="No such file or directory"):
        KeyFile(tmp_path / "missing" / "k", BITS)


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "fsync", "publish"])
@pytest.mark.parametrize("time", [1, 2])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, call, time, kind):
    count = 0
    if call == "publish":
        call = "rename" if kind == "hidden" else "link"
    real = getattr(os, call)

    def fail(*arguments, **options):
        nonlocal count
        count += 1
        if count == time:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

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
