"""A process that has imported what daemons need, to be forked.

It serves requests for processes (`runtime/fork_service.py`) and ends with those who can ask. It has
no keys, runs nothing, and has one thread; a fork of it goes on as `python -m qstack ARGUMENTS`
would. `qstack up` and `demo` make it of themselves before they begin; when it has gone, or for
others, it is `python -m qstack.cli.fork_server` with a socket for requests as standard input.
"""

import gc
import os
import runpy
import socket
import sys
from functools import partial
from importlib import import_module
from typing import Final

from setproctitle import setproctitle

from qstack.runtime.fork_service import ForkService
from qstack.runtime.forks import Server, ask_there, use

COMMANDS: Final = ("fabric", "layer", "node", "station")
THREADS: Final = "OPENBLAS_NUM_THREADS"  # numpy's mathematics would start one per processor


def main() -> None:
    """Serve at standard input, or be what was asked for."""
    try:
        requests = socket.socket(fileno=os.dup(0))
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        sys.exit(f"qstack: the fork server is for `qstack up` on Linux ({error.strerror})")
    import_all()
    if not _is_alone():
        sys.exit("qstack: a process with several threads cannot be forked")
    _serve(requests)


def make() -> None:
    """Make this process's fork server, before anything is done that a daemon need not have."""
    import_all()
    if not hasattr(os, "pidfd_open") or not _is_alone():
        return  # it will start one if it can
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.setsid()
        _serve(theirs)
    else:
        theirs.close()
        use(Server(pid, ours, partial(os.waitpid, pid, 0)))


def import_all() -> None:
    """Import what the daemons need; one thread is left, and nothing the collector would touch."""
    former = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    for command in COMMANDS:
        import_module(f"qstack.cli.{command}")
    if former is None:
        del os.environ[THREADS]
    else:
        os.environ[THREADS] = former
    gc.collect()
    gc.freeze()  # so that pages stay shared


def _is_alone() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _serve(requests: socket.socket) -> None:
    """Ends this process; returns in a child that has been what was asked for."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    begun = ForkService(requests).serve()
    if begun is None:
        os._exit(0)
    setproctitle(" ".join([sys.executable, "-m", "qstack", *begun.arguments]))
    ask_there(begun.server)
    # The generators of the standard library and of OpenSSL see by themselves that they are forks.
    sys.modules["numpy"].random.seed()
    sys.argv[1:] = begun.arguments
    runpy.run_module("qstack", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
