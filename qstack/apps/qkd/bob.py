"""The end that took the pairs: he corrects his key bits, and knows the errors in Z by it."""

import numpy as np

from qstack.apps.qkd import messages
from qstack.apps.qkd.alice import privately, release_text
from qstack.apps.qkd.authentication import is_equal
from qstack.apps.qkd.bits import Bits
from qstack.apps.qkd.cascade import AskBlocks, AskNodes, Correction
from qstack.apps.qkd.finite_key import GridRow
from qstack.apps.qkd.machine import FRACTIONS, Handler, Machine, bits_of
from qstack.apps.qkd.reasons import AbortError, Reason
from qstack.apps.qkd.secret import Slot
from qstack.apps.qkd.states import BOB, Input, State
from qstack.apps.qkd.verification import verification_hash
from qstack.wire.message import Message

NOTICEABLE = 0.05  # of the run: how often progress is said while correcting


class Bob(Machine):
    """Bob."""

    ROLE = "bob"
    TABLE = BOB
    _correction: Correction
    _row: GridRow
    _seed: Bits

    def handlers(self) -> dict[type[Message], Handler]:
        """What alice says."""
        return {
            messages.Reconcile: self._on_reconcile,
            messages.Parities: self._on_parities,
            messages.Verify: self._on_verify,
            messages.TranscriptTag: self._on_transcript_tag,
            messages.Seed: self._on_seed,
            messages.Release: self._on_release,
            messages.Confirm: self._on_confirm,
        }

    # --- measuring and sifting -------------------------------------------------------------------

    def on_all_measured(self) -> None:
        """Tell alice; she publishes her bases first."""
        self.step(Input.MEASURED)
        self.say(messages.PairsMeasured(pairs=self._bases.size))

    def on_bases_known(self) -> None:
        """Publish bases and test outcomes."""
        self.say_bits(messages.Bases, self._bases)
        self.say_bits(messages.XOutcomes, self._test_bits)

    def on_errors_known(self) -> None:
        """Alice says when to begin."""

    # --- correction ------------------------------------------------------------------------------

    def _on_reconcile(self, reconcile: messages.Reconcile) -> None:
        self.step(Input.SEED_OF_PERMUTATIONS)
        passes = self._parameters.schedule.passes
        self._correction = Correction(self._key_bits, self.plan(reconcile.seed), passes)
        self._awaited: list[int] = []  # parities in each answer on its way
        self._answers: list[Bits] = []
        self._said = FRACTIONS[self.state]
        self._ask()

    def _ask(self) -> None:
        question = self._correction.ask()
        self.check_z_errors(self._correction.errors_at_least)
        match question:
            case None:
                self.step(Input.CORRECTED)
                self.say(messages.Corrected())
            case AskBlocks(number=number, level=level):
                self._awaited.append(question.nodes.size)
                self.say(messages.BlocksQuery(number=number, level=level))
            case AskNodes(nodes=nodes):
                for start in range(0, nodes.size, messages.NODES_MAX):
                    part = nodes[start : start + messages.NODES_MAX]
                    self._awaited.append(part.size)
                    self.say(messages.NodesQuery(nodes=part.astype(">u4").tobytes()))

    def _on_parities(self, parities: messages.Parities) -> None:
        self.step(Input.PARITIES)
        awaited = self._awaited.pop(0) if self._awaited else 0
        if parities.count != awaited:
            raise AbortError(Reason.MALFORMED, f"{parities.count} parities in place of {awaited}")
        self._answers.append(bits_of(parities.bits, awaited))
        if self._awaited:
            return
        self._correction.take(np.concatenate(self._answers))
        self._answers.clear()
        self._say_progress()
        self._ask()

    def _say_progress(self) -> None:
        start, end = FRACTIONS[State.RECONCILING], FRACTIONS[State.VERIFYING]
        done = min(1.0, self._correction.parities / self._parameters.parities_max)
        fraction = start + (end - start) * done
        if fraction >= self._said + NOTICEABLE:
            self._said = fraction
            self.progress(fraction)

    def _on_verify(self, verify: messages.Verify) -> None:
        self.require(Input.VERIFIED)
        self._verifications += 1
        corrected = self._correction.bits
        if not is_equal(verify.hash, verification_hash(corrected, verify.choice)):
            self._continue()
            return
        errors = self._correction.corrected
        self._row = self.settle(z_errors=errors, parities=self._correction.parities)
        self._key_bits.fill(0)
        self._key_bits = corrected
        self.say(messages.Verified(z_errors=errors))
        self.close_transcript()
        tag = self.make_tag(Slot.BOB_TRANSCRIPT, self._transcript)
        self.say(messages.TranscriptTag(tag=tag))
        self.step(Input.VERIFIED)

    def _continue(self) -> None:
        if not self._correction.add_pass():
            detail = f"after {self._verifications} verifications"
            raise AbortError(Reason.VERIFICATION, detail)
        self.step(Input.UNVERIFIED)
        self.say(messages.Unverified())
        self._ask()

    # --- tags and key ----------------------------------------------------------------------------

    def _on_transcript_tag(self, message: messages.TranscriptTag) -> None:
        self.require(Input.TAG)
        self.check_tag(Slot.ALICE_TRANSCRIPT, self._transcript, message.tag)
        self.step(Input.TAG)

    def _on_seed(self, part: messages.Seed) -> None:
        seed = self.collect(part, self._parameters.n - 1, Input.SEED)
        if seed is not None:
            self._seed = seed

    def _on_release(self, release: messages.Release) -> None:
        self.require(Input.RELEASED)
        text = release_text(release.key_bits, release.leak_bits, self._seed)
        self.check_tag(Slot.ALICE_SEED, text, release.tag)
        ours = (self._row.key_bits, self.figures.leak_bits)
        if (release.key_bits, release.leak_bits) != ours:
            detail = f"{release.key_bits} bits and {release.leak_bits} disclosed, here {ours}"
            raise AbortError(Reason.TRANSCRIPT, detail)
        self._key = privately(self._key_bits, self._seed, self._row.key_bits)
        self.say(messages.Confirm(tag=self.make_tag(Slot.BOB_CONFIRMS, b"")))
        self.step(Input.RELEASED)

    def _on_confirm(self, confirm: messages.Confirm) -> None:
        self.require(Input.CONFIRMED)
        self.check_tag(Slot.ALICE_CONFIRMS, b"", confirm.tag)
        self.finish()
