"""`./run`: what a stranger sees when something is missing."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(folder / "run"), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
        timeout=60,
        check=False,
    )


def copy_of_the_script(folder: Path) -> Path:
    shutil.copy(ROOT / "run", folder / "run")
    return folder


def fake_python(folder: Path, body: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_it_is_short():
    assert len((ROOT / "run").read_text().splitlines()) <= 30


def test_without_a_command_it_says_how_it_is_used(tmp_path):
    done = run(copy_of_the_script(tmp_path))
    assert done.returncode == 2
    assert "usage: ./run demo" in done.stderr


def test_without_venv_it_says_what_to_install(tmp_path):
    python = fake_python(tmp_path, 'case "$1" in -c) exit 0;; *) exit 1;; esac')
    done = run(copy_of_the_script(tmp_path), "demo", PYTHON=python)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_old_python_is_refused_with_the_version_that_is_needed(tmp_path):
    python = fake_python(tmp_path, 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac')
    done = run(copy_of_the_script(tmp_path), "demo", PYTHON=python)
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "3.9.2" in done.stderr
