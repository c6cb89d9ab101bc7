"""Pre-shared secrets as files: private, equal, never overwritten, made for two nodes."""

import os
import stat
import sys
import textwrap
from subprocess import run

import pytest

from qstack.channel.ca import CredentialsError
from qstack.channel.preshared import LENGTH_MAX, create_preshared, file_name


def test_both_files_hold_the_same_bytes_and_are_private(tmp_path):
    paths = create_preshared(tmp_path, "test", "delft", "leiden", length=100)
    assert [path.name for path in paths] == ["delft.leiden.secret", "leiden.delft.secret"]
    pools = [path.read_bytes().partition(b"\n")[2] for path in paths]
    assert pools[0] == pools[1]
    assert len(pools[0]) == 100
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)


def test_no_two_secrets_are_alike(tmp_path):
    pools = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (path, _) = create_preshared(folder, "test", "delft", "leiden")
        pools.append(path.read_bytes().partition(b"\n")[2])
    assert pools[0] != pools[1]


@pytest.mark.parametrize("there", [("delft", "leiden"), ("leiden", "delft")])
def test_no_secret_is_overwritten_and_none_is_half_made(tmp_path, there):
    path = tmp_path / file_name(*there)
    path.write_bytes(b"precious")
    with pytest.raises(CredentialsError, match="already"):
        create_preshared(tmp_path, "test", "delft", "leiden")
    assert [(path.name, path.read_bytes())] == [
        (p.name, p.read_bytes()) for p in tmp_path.iterdir()
    ]


@pytest.mark.parametrize(
    ("network", "first", "second", "length"),
    [
        ("test", "delft", "delft", 10),
        ("test", "Delft", "leiden", 10),
        ("test", "../a", "b", 10),
        ("te/st", "a", "b", 10),
        ("test", "a", "b", 0),
        ("test", "a", "b", LENGTH_MAX + 1),
    ],
)
def test_no_secret_is_made_for_what_are_no_two_nodes(tmp_path, network, first, second, length):
    with pytest.raises(CredentialsError):
        create_preshared(tmp_path, network, first, second, length=length)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_missing_or_full_is_said_and_nothing_is_left(tmp_path):
    with pytest.raises(CredentialsError, match="No such file"):
        create_preshared(tmp_path / "missing", "test", "delft", "leiden")
    program = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from qstack.channel.preshared import create_preshared
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        create_preshared(Path(sys.argv[1]), "test", "delft", "leiden")
    """)
    done = run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=False,
               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert b"CredentialsError: cannot write" in done.stderr
    assert not list(tmp_path.iterdir())
