"""A node's channel to the fabric's process: device operations, answers, and the clock."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from qstack.channel.ca import Credentials
from qstack.channel.channel import Channel
from qstack.channel.ends import ChannelClosed, ChannelRefused
from qstack.channel.hello import open_channel
from qstack.channel.identity import Identity
from qstack.physical import device, program_device, station_device
from qstack.runtime.clock_messages import NODE_MESSAGES
from qstack.runtime.listen import Unreached
from qstack.runtime.network_file import Network
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import Frame, Layer
from qstack.wire.message import Message
from qstack.wire.session import Error, Hello, Stamp

FABRIC_NODE: Final = "fabric"
"""The name of the fabric in identities; no node may have it."""
REDIAL_S: Final = 0.05
UNANSWERED: Final = (device.Release, device.DoGate)
"""The wall clock lets them wait for something to go with: what follows them is done after them."""
REGISTRY: Final = Registry(
    (*device.MESSAGES, *station_device.MESSAGES, *program_device.MESSAGES, *NODE_MESSAGES)
)


class FabricLink:
    """One life of the channel. Sends are queued and written by `flush`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.received = 0
        self.is_pressing = False  # something is queued that somebody waits for
        self._due_ns = 0
        self._outbox: list[Frame] = []

    def queue(self, message: Message) -> None:
        """Queue a message for the next flush."""
        self._outbox.append(encode(message))
        self.is_pressing = self.is_pressing or not isinstance(message, UNANSWERED)

    @property
    def is_queued(self) -> bool:
        """Whether anything waits for the next flush."""
        return bool(self._outbox)

    async def flush(self) -> None:
        """Write what is queued in one send. A lost channel is the reader's to notice."""
        with suppress(ChannelClosed):
            if not self.flush_nowait() and self._outbox:
                frames, self._outbox = self._outbox, []
                self.is_pressing = False
                await self.channel.send(frames)
            if self.channel.has_unsent:
                await self.channel.drain()

    def flush_nowait(self) -> bool:
        """Write what is queued without waiting; False if there is still something to `flush`."""
        if self._outbox:
            if not self.channel.send_nowait(self._outbox):
                return False
            self._outbox = []
            self.is_pressing = False
        return not self.channel.has_unsent

    async def read(
        self,
        answered: Callable[[int, int, Message], None],
        clock: Callable[[Message], None],
        turn: Callable[[], None],
    ) -> None:
        """Hand over device answers (number, due time, message) and clock messages until the end.

        `turn` is called after each read. Raises `ChannelClosed`.
        """
        while True:
            for _, message in await self.channel.receive():
                if isinstance(message, Stamp):
                    self._due_ns = message.at_ns
                elif isinstance(message, Error):
                    raise ChannelClosed(f"the fabric said {message.name}: {message.detail}")
                elif message is not None and message.LAYER == Layer.CLOCK:
                    clock(message)
                elif message is not None:
                    answered(self.received, self._due_ns, message)
                    self.received += 1
            turn()


async def dial_fabric(
    network: Network, hello: Hello, credentials: Credentials, report: Callable[[str], None]
) -> FabricLink:
    """A channel to the fabric, tried again and again until there is one."""
    address = network.fabric
    assert address is not None
    expected = Identity(network.name, FABRIC_NODE, "fabric")
    unreached = Unreached(f"the fabric at {address}", report)
    while True:
        try:
            stream = await trio.open_tcp_stream(address.host, address.port)
            channel = await open_channel(
                stream,
                credentials=credentials,
                server=False,
                expected=expected,
                hello=hello,
                registry=REGISTRY,
            )
        except (OSError, ChannelRefused) as error:
            unreached.failed(error)
            await trio.sleep(REDIAL_S)
            continue
        return FabricLink(channel)
