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
import stat
import sys
from functools import partial
from importlib import import_module
from typing import Final, NoReturn

from setproctitle import setproctitle

from qstack.runtime.fork_service import ForkService
from qstack.runtime.forks import Server, ask_there, can_fork, use

IMPORTED: Final = (
    *(f"qstack.cli.{name}" for name in ("fabric", "layer", "main", "node", "station")),
    "encodings.idna",  # of host names
)
THREADS: Final = "OPENBLAS_NUM_THREADS"  # numpy's mathematics would start one per processor


def main() -> None:
    """Serve at standard input, or be what was asked for."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.exit("qstack: the fork server is started by `qstack up`, which asks at its input")
    open_standard_files()
    requests = socket.socket(fileno=os.dup(0))
    import_all()
    if not _is_alone():
        sys.exit("qstack: a process with several threads cannot be forked")
    _serve(requests)


def make() -> None:
    """Make this process's fork server, before anything is done that a daemon need not have."""
    if not can_fork():
        return  # whoever needs one does without
    import_all()
    if not _is_alone():
        return
    open_standard_files()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.setsid()
        _serve(theirs)
    theirs.close()
    use(Server(pid, ours, partial(os.waitpid, pid, 0)))


def open_standard_files() -> None:
    """Nothing else gets their numbers, should we have been started without."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def import_all() -> None:
    """Import what the daemons need; one thread is left, and nothing the collector would touch."""
    former = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    for module in IMPORTED:
        import_module(module)
    if former is None:
        del os.environ[THREADS]
    else:
        os.environ[THREADS] = former
    gc.collect()
    gc.freeze()  # so that pages stay shared


def _is_alone() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _serve(requests: socket.socket) -> NoReturn:
    """Serve to the end, and in a child be what was asked for."""
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
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # as `-m` has it, and a script has not
    runpy.run_module("qstack", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main()
