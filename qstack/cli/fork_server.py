"""`python -m qstack.cli.fork_server`: a process that has imported what daemons need, to be forked.

It serves requests for processes at its standard input, a socket (`runtime/fork_service.py`), and
ends with those who can ask. It has no keys, runs nothing, and has one thread; a fork of it goes on
as `python -m qstack ARGUMENTS` would. Its own arguments are for the list of processes only.
"""

import gc
import os
import runpy
import socket
import sys
from importlib import import_module
from typing import Final

from setproctitle import setproctitle

from qstack.runtime.fork_service import Begun, ForkService
from qstack.runtime.forks import inherit

COMMANDS: Final = ("fabric", "layer", "node", "station")
THREADS: Final = "OPENBLAS_NUM_THREADS"  # numpy's mathematics would start one per processor


def main() -> None:
    """Serve, or be what was asked for."""
    try:
        requests = socket.socket(fileno=os.dup(0))
    except OSError:
        sys.exit("qstack: the fork server is started by `qstack up`, which talks to it at its input")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.close(os.pidfd_open(os.getpid()))  # what it cannot do without is found out now
    import_all()
    begun = ForkService(requests).serve()
    if begun is None:
        os._exit(0)
    _be(begun)


def import_all() -> None:
    """Import what the daemons need, and let the collector leave it alone. One thread is left."""
    former = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    for command in COMMANDS:
        import_module(f"qstack.cli.{command}")
    if former is None:
        del os.environ[THREADS]
    else:
        os.environ[THREADS] = former
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        sys.exit(f"qstack: a process with {threads} threads cannot be forked")
    gc.collect()
    gc.freeze()  # so that its pages stay shared


def _be(begun: Begun) -> None:
    setproctitle(" ".join([sys.executable, "-m", "qstack", *begun.arguments]))
    inherit(begun.server)
    sys.modules["numpy"].random.seed()  # others of the standard library and OpenSSL see a fork
    sys.argv[1:] = begun.arguments
    runpy.run_module("qstack", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
