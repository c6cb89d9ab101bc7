"""The end that made the pairs: her key bits are the reference, she answers and counts.

Rules
1. The leak is what she sent: parities by the count of `Reference`, and every verification hash.
2. The seed of privacy amplification is drawn when bob's tag of the transcript is right, not before.
3. Her key goes out before her confirmation: if she dies between the two, he has none.
"""

import numpy as np

from qstack.apps.qkd import messages
from qstack.apps.qkd.bits import Bits, pack
from qstack.apps.qkd.cascade import Reference
from qstack.apps.qkd.finite_key import GridRow
from qstack.apps.qkd.machine import Handler, Machine
from qstack.apps.qkd.privacy_amplification import RoundingError, amplify
from qstack.apps.qkd.reasons import AbortError, Reason
from qstack.apps.qkd.secret import Slot
from qstack.apps.qkd.sifting import random_bits
from qstack.apps.qkd.states import ALICE, Input
from qstack.apps.qkd.verification import verification_hash
from qstack.wire.message import Message


class Alice(Machine):
    """Alice."""

    ROLE = "alice"
    TABLE = ALICE
    _reference: Reference
    _row: GridRow

    def handlers(self) -> dict[type[Message], Handler]:
        """What bob says."""
        return {
            messages.PairsMeasured: self._on_pairs_measured,
            messages.BlocksQuery: self._on_blocks_query,
            messages.NodesQuery: self._on_nodes_query,
            messages.Corrected: self._on_corrected,
            messages.Unverified: self._on_unverified,
            messages.Verified: self._on_verified,
            messages.TranscriptTag: self._on_transcript_tag,
            messages.Confirm: self._on_confirm,
        }

    # --- measuring and sifting -------------------------------------------------------------------

    _bob_pairs = -1  # how many bob measured; not known yet

    def on_all_measured(self) -> None:
        """Publish the bases if bob has measured too."""
        self.step(Input.MEASURED)
        self._publish_bases()

    def _on_pairs_measured(self, measured: messages.PairsMeasured) -> None:
        self.step(Input.PEER_MEASURED)
        self._bob_pairs = measured.pairs
        self._publish_bases()

    def _publish_bases(self) -> None:
        if self._bob_pairs < 0 or not self._bases.size:
            return
        if self._bob_pairs != self._bases.size:
            detail = f"{self._bases.size} measured here, {self._bob_pairs} at the peer"
            raise AbortError(Reason.TOO_FEW_PAIRS, detail)
        self.say_bits(messages.Bases, self._bases)

    def on_bases_known(self) -> None:
        """Bob's test outcomes follow by themselves."""

    def on_errors_known(self) -> None:
        """Publish the test outcomes, and let the correction begin."""
        seed = self._generator.bytes(16)
        self._reference = Reference(self._key_bits, self.plan(seed), self._parameters.parities_max)
        self.say_bits(messages.XOutcomes, self._test_bits)
        self.say(messages.Reconcile(seed=seed))

    # --- correction ------------------------------------------------------------------------------

    def _on_blocks_query(self, query: messages.BlocksQuery) -> None:
        self.step(Input.QUERY)
        self._answer(self._reference.blocks(query.number, query.level))

    def _on_nodes_query(self, query: messages.NodesQuery) -> None:
        self.step(Input.QUERY)
        if len(query.nodes) % 4:
            raise AbortError(Reason.MALFORMED, "a node has 4 bytes")
        nodes = np.frombuffer(query.nodes, dtype=">u4").astype(np.int64)
        self._answer(self._reference.answer(nodes))

    def _answer(self, parities: Bits) -> None:
        self.say(messages.Parities(count=parities.size, bits=pack(parities)))

    def _on_corrected(self, _corrected: messages.Corrected) -> None:
        self.step(Input.CORRECTED)
        if self._verifications > self._parameters.schedule.extra_passes:
            raise AbortError(Reason.LIMIT, "no further verification")
        self._verifications += 1
        choice = self._generator.bytes(16)
        digest = verification_hash(self._key_bits, choice)
        self.say(messages.Verify(choice=choice, hash=digest))

    def _on_unverified(self, _unverified: messages.Unverified) -> None:
        self.step(Input.UNVERIFIED)

    def _on_verified(self, verified: messages.Verified) -> None:
        self.step(Input.VERIFIED)
        parities = self._reference.parities_sent
        self._row = self.settle(z_errors=verified.z_errors, parities=parities)
        self.close_transcript()

    # --- tags and key ----------------------------------------------------------------------------

    def _on_transcript_tag(self, message: messages.TranscriptTag) -> None:
        self.require(Input.TAG)
        self.check_tag(Slot.BOB_TRANSCRIPT, self._transcript, message.tag)
        seed = random_bits(self._generator, self._parameters.n - 1)
        self._key = privately(self._key_bits, seed, self._row.key_bits)
        self.say(messages.TranscriptTag(tag=self.make_tag(Slot.ALICE_TRANSCRIPT, self._transcript)))
        self.say_bits(messages.Seed, seed)
        key_bits, leak_bits = self._row.key_bits, self.figures.leak_bits or 0
        tag = self.make_tag(Slot.ALICE_SEED, release_text(key_bits, leak_bits, seed))
        self.say(messages.Release(key_bits=key_bits, leak_bits=leak_bits, tag=tag))
        self.step(Input.TAG)

    def _on_confirm(self, confirm: messages.Confirm) -> None:
        self.require(Input.CONFIRMED)
        self.check_tag(Slot.BOB_CONFIRMS, b"", confirm.tag)
        self.finish(last=messages.Confirm(tag=self.make_tag(Slot.ALICE_CONFIRMS, b"")))


def privately(key: Bits, seed: Bits, length: int) -> bytes:
    """The final key, packed. Raises `AbortError` if it cannot be computed exactly."""
    try:
        return pack(amplify(key, seed, length))
    except (RoundingError, ValueError) as error:
        raise AbortError(Reason.AMPLIFICATION, str(error)) from None


def release_text(key_bits: int, leak_bits: int, seed: Bits) -> bytes:
    """What the tag of Release covers."""
    return key_bits.to_bytes(8, "big") + leak_bits.to_bytes(8, "big") + pack(seed)
