"""How a channel ends: it was refused before it was up, or it closed afterwards."""

from qstack.errors import ErrorCode


class ChannelRefused(Exception):
    """No channel came to be. `by_peer` says who refused; the text says what to do about it."""

    def __init__(self, code: ErrorCode, detail: str, *, by_peer: bool = False) -> None:
        who = "the peer refused this side: " if by_peer else ""
        super().__init__(f"{code.name}: {who}{detail}")
        self.code = code
        self.detail = detail
        self.by_peer = by_peer


class ChannelClosed(Exception):
    """The channel is gone. `code` is the error that ended it, or None for a plain goodbye."""

    def __init__(self, detail: str, code: ErrorCode | None = None) -> None:
        super().__init__(f"{code.name}: {detail}" if code else detail)
        self.detail = detail
        self.code = code


def readable(text: str) -> str:
    """A peer's words without the control characters that would reach somebody's terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:500])
