"""Any process of the demo is killed at any step: it ends, says why or goes on, and leaves nothing.

A soak (`./run test -m soak tests/cli/test_demo_deaths.py`): each case plays most of a demo.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.runtime.running import processes_of, wait_for, words_of

PIECES = ("fabric run", "--name alice", "--name r1", "--name r2", "--name bob")


def pid_of(runs: Path, piece: str) -> int | None:
    """The process of this demo whose command line has `piece`."""
    for pid in processes_of(runs):
        if re.search(re.escape(piece) + r"\b", " ".join(words_of(pid))):
            return pid
    return None


@pytest.mark.soak
@pytest.mark.parametrize("after_s", [0.5, 2.0, 4.0, 7.0])
@pytest.mark.parametrize("piece", PIECES)
def test_the_demo_ends_and_leaves_nothing_whoever_dies(piece: str, after_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="qd-", dir="/tmp") as folder:
        runs = Path(folder)
        with subprocess.Popen(
            [sys.executable, "-m", "qstack", "demo", "--pairs", "60", "--teleports", "30"],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as demo:
            wait_for(f"{piece} runs", lambda: pid_of(runs, piece) is not None)
            time.sleep(after_s)  # this long into the demo, whatever it is doing then
            pid = pid_of(runs, piece)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            words, _ = demo.communicate(timeout=60)
        assert demo.returncode in (0, 1), words
        assert "Traceback" not in words
        if demo.returncode == 1:
            assert "qstack: " in words or "did not hold" in words
        wait_for("nothing is left", lambda: not processes_of(runs))
        assert list(runs.iterdir()) == []
