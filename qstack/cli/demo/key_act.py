"""The demo's act of key distribution, as its applications play it: a key, and a message under it.

The key stays in the two files; the demo compares them. What the applications say of it on their
standard output is what may be known to anybody.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Struct, to_builtins

from qstack.api.node import Node
from qstack.api.streams import MessageStream
from qstack.apps.qkd.events import KeyMetadata, Progress
from qstack.apps.qkd.key_file import KeyFile
from qstack.apps.qkd.parameters import planned
from qstack.apps.qkd.program import Terms, distribute
from qstack.apps.qkd.secret_file import SecretFile

MESSAGE_PORT: Final = 12
FRACTION_X: Final = 0.3
CIPHER_KEY_BYTES: Final = 32
NONCE: Final = bytes(12)  # a key is used for one message
MESSAGE: Final = "the first words under a key of this network"
LONG_NS: Final = 600 * 10**9

Say = Callable[..., None]


class KeyPlan(Struct, frozen=True, kw_only=True):
    """How to make the key: from so many pairs, with this secret, into this file."""

    network: str
    pairs: int
    secret: str
    file: str


async def make_key(node: Node, remote: str, plan: KeyPlan, say: Say) -> None:
    """Distribute a key with `remote`; ends the application if there is none."""
    parameters = planned(plan.pairs, FRACTION_X)

    def on_progress(progress: Progress) -> None:
        say("key-progress", phase=progress.phase, fraction=progress.fraction)

    key_bits_max = max(row.key_bits for row in parameters.grid)
    with (
        SecretFile(Path(plan.secret), network=plan.network, here=node.name, peer=remote) as secret,
        KeyFile(Path(plan.file), key_bits_max) as keys,
    ):
        outcome = await distribute(
            node,
            Terms(remote=remote, parameters=parameters),
            secret.secret,
            keys,
            on_progress=on_progress,
        )
    if not isinstance(outcome, KeyMetadata):
        raise SystemExit(f"no key: {outcome.text}")
    say("key", now_ns=node.now(), key_bits=outcome.key_bits, figures=to_builtins(outcome.figures),
        origin=outcome.origin, note=outcome.note)  # fmt: skip


async def send_message(node: Node, remote: str, plan: KeyPlan, say: Say) -> None:
    """A message under the key."""
    sealed = _cipher(plan).encrypt(NONCE, MESSAGE.encode(), None)
    async with node.message_socket(remote=remote, port=MESSAGE_PORT, deadline_ns=LONG_NS) as out:
        await out.send(sealed)
        await out.receive(deadline_ns=LONG_NS)
    say("message-sent", bytes=len(sealed), now_ns=node.now())


async def receive_message(node: Node, plan: KeyPlan, say: Say) -> None:
    """The message, read with this end's key."""
    async with node.listen(port=MESSAGE_PORT) as server:
        stream = await server.accept(deadline_ns=LONG_NS)
        assert isinstance(stream, MessageStream)
        sealed = await stream.receive(deadline_ns=LONG_NS)
        try:
            text = _cipher(plan).decrypt(NONCE, sealed, None).decode()
        except InvalidTag:
            text = ""
        say("message", text=text, right=text == MESSAGE)
        await stream.send(b"read")


def _cipher(plan: KeyPlan) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Path(plan.file).read_bytes()[:CIPHER_KEY_BYTES])
