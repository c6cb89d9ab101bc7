"""Reading a socket by waiting first: who answers one peer after another seldom finds more at once.

A trio stream tries to read before it waits, and lets all other tasks run after a read that
succeeded at once; both cost more than reading a small message.
"""

import os

import trio
import trio.lowlevel


async def receive_when_readable(stream: trio.SocketStream, max_bytes: int) -> bytes:
    """What is there once something is; empty at the end of the stream.

    Raises `trio.BrokenResourceError` for a connection that has gone, `trio.ClosedResourceError`
    for one closed here.
    """
    while True:
        await trio.lowlevel.wait_readable(stream.socket)
        try:
            return os.read(stream.socket.fileno(), max_bytes)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError(f"the connection is gone: {error}") from error
