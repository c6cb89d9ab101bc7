"""Open files that go to another process with a datagram. Neither call waits.

(`socket.send_fds` and `recv_fds` do not pass their flags on.)
"""

import array
import socket
from collections.abc import Sequence


def send_with(connection: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send `data` and with it `descriptors`, which stay open here. Raises `OSError`."""
    sent = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    connection.sendmsg([data], sent, socket.MSG_DONTWAIT)


def receive_with(
    connection: socket.socket, bytes_max: int, descriptors_max: int
) -> tuple[bytes, list[int]]:
    """A datagram and the descriptors that came with it, ours to close. Raises `OSError`."""
    found = array.array("i")
    room = socket.CMSG_LEN(descriptors_max * found.itemsize)
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, ancillary, _, _ = connection.recvmsg(bytes_max, room, flags)
    for level, kind, received in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(received[: len(received) - len(received) % found.itemsize])
    return data, found.tolist()
