"""Listening and dialling: TCP sockets that become channels, with errors a stranger can act on."""

import errno
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from qstack.channel.ends import ChannelRefused
from qstack.channel.hello import HandshakeGate
from qstack.runtime.network_tables import Address


class AddressError(Exception):
    """An address cannot be listened on."""


SILENT_S: Final = 3.0  # processes of a network do not start at one moment


class Unreached:
    """Says what keeps a dialler from `whom`, once for each cause; a refusal at once, silence late.

    `whom` is for people: "the fabric at 192.0.2.1:7400".
    """

    def __init__(self, whom: str, report: Callable[[str], None]) -> None:
        self._whom = whom
        self._report = report
        self._since_s = trio.current_time()
        self._told = ""

    def failed(self, error: OSError | ChannelRefused) -> None:
        """An attempt failed; there will be another one."""
        is_silence = isinstance(error, OSError)
        if is_silence and trio.current_time() - self._since_s < SILENT_S:
            return
        cause = "no answer; is it running, and the address right?" if is_silence else str(error)
        if cause != self._told:
            self._told = cause
            self._report(f"cannot reach {self._whom}: {cause} Trying again.")


async def listen(address: Address) -> trio.SocketListener:
    """A listener on `address`. Raises `AddressError`."""
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"{address} is in use by another process; stop it, or give this network other"
                " ports (address in the network file)"
            ) from error
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from error
    return listeners[0]


def listen_locally(path: Path) -> trio.SocketListener:
    """A listener on the Unix socket `path`, for this user only; an old one is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise AddressError(f"cannot listen on {path}: {error.strerror}") from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


def forget(path: Path) -> None:
    """Remove the socket of a listener that has ended."""
    path.unlink(missing_ok=True)


async def serve(
    listener: trio.SocketListener,
    handle: Callable[[trio.SocketStream], Awaitable[None]],
    report: Callable[[str], None],
) -> None:
    """Hand every connection to `handle` (which makes a channel of it) until cancelled.

    `report` hears of each refused peer: a refused stranger never ends a daemon.
    """
    gate = HandshakeGate()

    async def one(stream: trio.SocketStream) -> None:
        try:
            with gate:
                await handle(stream)
        except ChannelRefused as refusal:
            report(f"refused a connection: {refusal}")
            await trio.aclose_forcefully(stream)
        except trio.Cancelled:
            await trio.aclose_forcefully(stream)
            raise

    async with listener, trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(one, await listener.accept())
