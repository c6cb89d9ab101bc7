"""A channel that is up: frames both ways between two identities.

Rules
1. One `send` is one write, however many frames. Any task may send; writes are not mixed.
2. `receive` gives whole frames, decoded and judged; what it gives does not depend on how the
   stream was cut. One task receives.
3. A peer's error is answered by an ERROR frame. Where the registry's scope is "channel", that was
   the last frame; otherwise the bad message is dropped, counted, and the channel stays.
4. ERROR frames of the peer are handed to the caller, and never answered.
5. Receiving does not wait for sending, but to answer an error, and that not longer than
   `ANSWER_S`: a peer that sends nonsense and reads nothing is cut off.
"""

from typing import Final

import trio

from qstack.channel.ends import ChannelClosed, ChannelRefused, readable
from qstack.channel.identity import Identity, layers_allowed
from qstack.channel.tls import FAREWELL_S, TlsStream
from qstack.errors import ErrorCode, LocalError, PeerError
from qstack.wire.codec import Registry, encode
from qstack.wire.frame import HEADER, MAGIC, VERSION, Frame, FrameReader, Layer, pack
from qstack.wire.message import Message
from qstack.wire.session import MESSAGES, Error, Hello

__all__ = ["SESSION", "Channel", "ChannelClosed", "ChannelRefused", "Received", "error_frame"]

Received = tuple[Frame, Message | None]

SESSION: Final = Registry(MESSAGES)
SESSION_LAYER: Final = int(Layer.SESSION)  # plain: compared with that of each frame
SESSION_TYPES: Final = frozenset(message.TYPE for message in MESSAGES)
BAD_FRAMES_MAX: Final = 256  # in one read: an answer is longer than the frame it answers
ANSWER_S: Final = 5.0


def error_frame(code: ErrorCode, detail: str, field: str = "") -> Frame:
    """The ERROR frame of a registry error."""
    return encode(Error(name=code.name, detail=readable(detail), field=readable(field)[:200]))


class Channel:
    """Made by `open_channel`. `refused` counts the peer's bad messages that were dropped."""

    def __init__(
        self,
        tls: TlsStream,
        *,
        hello: Hello,
        capabilities: dict[str, int],
        registry: Registry,
        reader: FrameReader,
        early: list[Frame],
    ) -> None:
        self.tls = tls
        self.hello = hello
        self.capabilities = capabilities
        self.refused = 0
        self._registry = registry
        self._reader = reader
        self._early = early  # frames that came in one read with HELLO
        allowed = layers_allowed(tls.peer.role)
        self._forbidden = frozenset(int(layer) for layer in Layer if layer not in allowed)
        self._ready: list[Received] = []
        self._answers: list[Frame] = []
        self._fault: PeerError | None = None
        self._peer_error: Error | None = None
        self._closed: ChannelClosed | None = None
        self._send_lock = trio.Lock()

    @property
    def peer(self) -> Identity:
        """Who is at the other end, from its certificate."""
        return self.tls.peer

    @property
    def group(self) -> str:
        """The key exchange, such as X25519MLKEM768."""
        return self.tls.group

    @property
    def frame_bytes_max(self) -> int:
        """The longest body both sides agreed to."""
        return self._reader.bytes_max

    async def send(self, frames: list[Frame]) -> None:
        """Send the frames in one write.

        Raises `ChannelClosed`, or `LocalError` (nothing was sent) for a frame over the limit.
        """
        await self._write(self._packed(frames))

    def send_nowait(self, frames: list[Frame]) -> bool:
        """Send without waiting; False, and nothing done, if it cannot be now. See `TlsStream`."""
        if self._send_lock.locked():
            return False  # `send` waits for its turn
        try:
            data = self._packed(frames)
        except LocalError:
            return False  # `send` says it
        return self.tls.send_nowait(data)

    def _packed(self, frames: list[Frame]) -> bytes:
        limit = self._reader.bytes_max
        parts: list[bytes] = []
        for frame in frames:
            size = len(frame.body)
            if size > limit:
                raise LocalError(
                    ErrorCode.TOO_LARGE, f"{size} bytes to send, at most {limit} agreed"
                )
            parts += HEADER.pack(MAGIC, VERSION, frame.layer, frame.type, size), frame.body
        return b"".join(parts)

    @property
    def has_unsent(self) -> bool:
        """Whether something of `send_nowait` waits for `drain`."""
        return self.tls.has_unsent

    async def drain(self) -> None:
        """Send what `send_nowait` left. Raises `ChannelClosed`."""
        async with self._send_lock:
            try:
                await self.tls.drain()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._send_failed(str(error)) from error

    async def receive(self) -> list[Received]:
        """The next whole frames, at least one; the message is None for an unknown optional type.

        Raises `ChannelClosed` when the channel ends, by whatever cause.
        """
        while True:
            if self._fault is not None:
                await self.cut_off(self._fault)
            frames, self._early = self._early, []
            self._judge(frames or await self._read_frames())
            if self._answers:
                await self._answer()
            if self._ready:
                ready, self._ready = self._ready, []
                return ready

    async def cut_off(self, fault: PeerError) -> None:
        """Answer what ends the channel, close, and raise `ChannelClosed`. For who reads it."""
        if self._closed is None:
            self._closed = ChannelClosed(fault.detail, fault.code)
            frame = error_frame(fault.code, fault.detail, fault.field)
            with trio.move_on_after(FAREWELL_S):
                async with self._send_lock:
                    pass  # let a send that is under way finish, so that the answer can follow it
            await self.tls.refuse(pack(frame))
        raise ChannelClosed(self._closed.detail, self._closed.code)

    async def aclose(self) -> None:
        """Say goodbye and close. What was sent before still arrives."""
        if self._closed is None:
            self._closed = ChannelClosed("this side closed the channel")
        await self.tls.aclose()

    async def _read_frames(self) -> list[Frame]:
        try:
            frames = [] if self._reader.is_empty else self._reader.feed(b"")
            if frames:
                return frames
            data = await self.tls.receive_some()
            if data:
                return self._reader.feed(data)
        except PeerError as fault:
            self._fault = fault
            return []
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            closed = self._end(str(error))
            await trio.aclose_forcefully(self.tls.transport)
            raise closed from error
        closed = self._end(
            "the peer closed the channel"
            if self._reader.is_empty
            else "the peer closed the channel in mid-frame; the frame is lost"
        )
        await self.tls.aclose()
        raise closed

    def _judge(self, frames: list[Frame]) -> None:
        """Sort frames into those for the caller and those to answer with an error."""
        ready = self._ready
        for frame in frames:
            try:
                ready.append((frame, self._decode(frame)))
            except PeerError as error:
                if error.code.value.scope == "channel":
                    self._fault = error
                    return
                self.refused += 1
                if len(self._answers) >= BAD_FRAMES_MAX:
                    self._fault = PeerError(ErrorCode.RATE, "too many bad messages at once")
                    return
                self._answers.append(error_frame(error.code, error.detail, error.field))

    def _decode(self, frame: Frame) -> Message | None:
        layer = frame.layer
        if layer in self._forbidden:
            raise PeerError(
                ErrorCode.ROLE,
                f"a peer of role {self.peer.role} may not speak for layer {Layer(layer).name}",
            )
        if layer != SESSION_LAYER or frame.type not in SESSION_TYPES:
            return self._registry.decode(frame)
        message = SESSION.decode(frame)
        if isinstance(message, Hello):
            raise PeerError(ErrorCode.OUT_OF_STATE, "HELLO is said once, as the first frame")
        if isinstance(message, Error):
            self._peer_error = message
        return message

    async def _answer(self) -> None:
        answers, self._answers = self._answers, []
        with trio.move_on_after(ANSWER_S) as limit:
            await self.send(answers)
        if limit.cancelled_caught:
            self._fault = PeerError(ErrorCode.RATE, "bad messages, and their answers are not read")

    async def _write(self, data: bytes) -> None:
        lock = self._send_lock
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()
        try:
            await self.tls.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._send_failed(str(error)) from error
        finally:
            lock.release()

    def _send_failed(self, detail: str) -> ChannelClosed:
        """Why a send failed. It closes nothing: the peer's reason may be there still to read."""
        known = self._closed
        return ChannelClosed(known.detail, known.code) if known else ChannelClosed(detail)

    def _end(self, detail: str) -> ChannelClosed:
        """Note how the channel ended: the first reason stays, and the peer's own words count."""
        if self._closed is None:
            code = None
            if self._peer_error is not None:
                code = ErrorCode.__members__.get(self._peer_error.name)
                detail = f"{detail}; it said {self._peer_error.name}: {self._peer_error.detail}"
            self._closed = ChannelClosed(readable(detail), code)
        return ChannelClosed(self._closed.detail, self._closed.code)
