"""Reading when there is something to read: data, the end, a reset, a close from within."""

import socket
import struct

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from qstack.channel.readable import receive_when_readable


async def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Both ends of a TCP connection on loopback."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return near, await listener.accept()


async def test_it_waits_for_data_and_reports_the_end() -> None:
    near, far = await connected()
    got: list[bytes] = []

    async def read() -> None:
        while data := await receive_when_readable(near, 4):
            got.append(data)

    async with near, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert got == []
        async with far:
            await far.send_all(b"seven bytes"[:7])
    assert b"".join(got) == b"seven b"
    assert all(len(data) <= 4 for data in got)


async def test_a_reset_is_a_broken_resource() -> None:
    near, far = await connected()
    far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(far)
    async with near:
        with pytest.raises(trio.BrokenResourceError):
            await receive_when_readable(near, 4)


async def test_a_stream_closed_here_wakes_its_reader() -> None:
    near, far = await connected()
    async with far, trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive_when_readable(near, 4)

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(near)
