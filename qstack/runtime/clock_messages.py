"""What the clock of an emulated network and its participants say (layer CLOCK, CLOCK.md).

They share the channel of the node and the fabric's process with the device's operations and
answers: what a node sends to its device before `Done` belongs to the round.
"""

from typing import Annotated

from msgspec import Meta, Struct

from qstack.wire.frame import Layer
from qstack.wire.message import BootId, Count, Label, Message, Name, Nanoseconds, NetworkTime


class _Clock(Message, frozen=True, kw_only=True):
    LAYER = Layer.CLOCK


class Join(_Clock, frozen=True, kw_only=True):
    """A node is there. `now_ns`: the largest network time it has seen, if a fabric died before."""

    TYPE = 0x0001
    now_ns: NetworkTime


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node came (with its boot id) or went (boot id nil), at `at_ns`.

    The boot id of a node that is up already: the channel to it broke, and a new one begins.
    """

    node: Name
    boot_id: BootId | None
    at_ns: Nanoseconds


class Start(_Clock, frozen=True, kw_only=True):
    """The joining node takes part from `at_ns` on; `members` are the nodes that are up."""

    TYPE = 0x0002
    at_ns: Nanoseconds
    members: Annotated[dict[Name, BootId], Meta(max_length=4096)]


class Advance(_Clock, frozen=True, kw_only=True):
    """Handle everything before `until_ns`, once `expected` messages of each source have come.

    `floor_ns`: everything before it is done everywhere; calls that came since are made then if
    `hears_calls`, else (applications are still waited for) kept.
    """

    TYPE = 0x0003
    round: Count
    until_ns: Nanoseconds
    floor_ns: Nanoseconds
    hears_calls: bool
    expected: Annotated[dict[Label, Count], Meta(max_length=4096)]
    changes: Annotated[list[Change], Meta(max_length=4096)]


class SentTo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Messages to one target in a round, and when the earliest of them is to be handled."""

    count: Count
    earliest_ns: Nanoseconds


class Done(_Clock, frozen=True, kw_only=True):
    """The round is done here. `next_ns` nil: nothing is ahead."""

    TYPE = 0x0004
    round: Count
    next_ns: Nanoseconds | None
    is_demanding: bool
    is_waiting: bool
    sent: Annotated[dict[Label, SentTo], Meta(max_length=4096)]


class Wake(_Clock, frozen=True, kw_only=True):
    """Outside a round: applications called (`has_calls`), came, or are busy or no longer so."""

    TYPE = 0x0005
    has_calls: bool
    is_busy: bool
    applications: Count


class Dropped(_Clock, frozen=True, kw_only=True):
    """Do not wait for `node` any more: it has gone. The Change follows with the next Advance."""

    TYPE = 0x0006
    node: Name


class Changed(_Clock, frozen=True, kw_only=True):
    """Wall clock only: a node came or went just now."""

    TYPE = 0x0007
    change: Change


class ChannelOpen(_Clock, frozen=True, kw_only=True):
    """Node to node: the layers of the sender use this channel from now on."""

    TYPE = 0x0008


class AskTime(_Clock, frozen=True, kw_only=True):
    """Wall clock only, from a node: what time is it?"""

    TYPE = 0x0009


class Time(_Clock, frozen=True, kw_only=True):
    """Wall clock only: the answer to AskTime."""

    TYPE = 0x000A
    at_ns: Nanoseconds


class ChannelLost(_Clock, frozen=True, kw_only=True):
    """Lockstep only, from a node: the channel to `node`, which takes part, is broken here."""

    TYPE = 0x000B
    node: Name


class ChannelBroken(_Clock, frozen=True, kw_only=True):
    """Lockstep only: `node` says that the channel to you is broken. Break it off, and say so.

    Wait for nothing more of it. When both ends have said ChannelLost, a Change follows.
    """

    TYPE = 0x000C
    node: Name


NODE_MESSAGES = (Start, Advance, Dropped, Changed, Time, ChannelBroken)
"""Said to a node by the fabric's process."""
PEER_MESSAGES = (ChannelOpen,)
"""Said by a node to another."""
FABRIC_MESSAGES = (Join, Done, Wake, AskTime, ChannelLost)
"""Said to the fabric's process."""
