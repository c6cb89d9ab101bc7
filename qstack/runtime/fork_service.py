"""The fork server's own work: a copy of this process for each request, and word of its end.

Rules
1. A request is one datagram: the arguments, and with them four descriptors: standard input and
   error, where to answer, and where to ask (for the child, which may need processes of its own).
2. The answer is the process id with a descriptor of the process (a pidfd: nobody can signal another
   that was given the number later), then at its end the exit status; a signal is negative.
3. Who has gone before the answer gets no process. What is no request is dropped; but a text alone
   is what the list of processes is to say of this one.
4. The server ends when nobody is left who can ask and its children have ended.

In a child `serve` returns what it is to be; it has left everything of the server's behind.
"""

import os
import select
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

import msgspec
from setproctitle import setproctitle

from qstack.runtime.descriptors import receive_with, send_with

REQUEST_BYTES_MAX: Final = 65_536
DESCRIPTORS: Final = 4
_decoder: Final = msgspec.msgpack.Decoder(list[str] | str)


@dataclass(frozen=True)
class Begun:
    """What a child is to be. `server`: its connection, to ask for processes of its own."""

    arguments: list[str]
    server: socket.socket


@dataclass(frozen=True)
class _Child:
    pid: int
    answer: socket.socket


class ForkService:
    """Serves those who hold the other end of `requests`. The process must have one thread only."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._is_open = True
        self._children: dict[int, _Child] = {}  # by pidfd
        self._poll = select.poll()  # nothing of it is in the kernel, where children would share it
        self._poll.register(requests, select.POLLIN)

    def serve(self) -> Begun | None:
        """Serve to the end (None), and in every child until it begins."""
        while self._is_open or self._children:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._reap(descriptor)
                elif (begun := self._answer_one()) is not None:
                    return begun
        self._requests.close()
        return None

    def _answer_one(self) -> Begun | None:
        with ExitStack() as received:
            data, descriptors = receive_with(self._requests, REQUEST_BYTES_MAX, DESCRIPTORS)
            for descriptor in descriptors:
                received.callback(os.close, descriptor)
            if not data:
                self._is_open = False
                self._poll.unregister(self._requests)
            try:
                arguments = _decoder.decode(data)
                if isinstance(arguments, str):
                    setproctitle(arguments)
                    return None
                standard_input, standard_error, answer, server = descriptors
            except ValueError:  # msgspec's error is one, too
                return None
            if not _is_there(answer):
                return None
            try:
                pid = os.fork()
            except OSError:  # the system gives no process: nobody is answered
                return None
            if pid == 0:
                self._leave()
                os.setsid()
                os.dup2(standard_input, 0)
                os.dup2(standard_error, 2)
                return Begun(arguments, socket.socket(fileno=os.dup(server)))
            self._keep(pid, socket.socket(fileno=os.dup(answer)))
        return None

    def _leave(self) -> None:
        """In a child: nothing of the server's stays open."""
        self._requests.close()
        for pidfd, child in self._children.items():
            os.close(pidfd)
            child.answer.close()

    def _keep(self, pid: int, answer: socket.socket) -> None:
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = _Child(pid, answer)
        self._poll.register(pidfd, select.POLLIN)
        with suppress(OSError):  # who asked has gone: its child ends without it
            send_with(answer, str(pid).encode(), [pidfd])

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        with child.answer, suppress(OSError):
            child.answer.send(str(os.waitstatus_to_exitcode(status)).encode())


def _is_there(answer: int) -> bool:
    poll = select.poll()
    poll.register(answer, 0)  # a hang-up is always told
    return not poll.poll(0)
