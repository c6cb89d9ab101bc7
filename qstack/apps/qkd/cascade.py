"""Cascade: one end corrects its bits to those of the other by asking for parities.

Two halves that share nothing but messages. `Reference` answers; `Correction` asks, one message per
level of the trees for all blocks at work, and keeps every parity it learnt: after each batch of
corrections the smallest known interval around each corrected bit, in every pass, is looked at
again, and searched if it is odd now (sub-block reuse: Martinez-Mateo and others, Quantum Inf.
Comput. 15, 453 (2015); Brassard, Salvail, EUROCRYPT '93).

No error rate has to be known: the first pass begins with long blocks and halves them all until as
many are odd as is best. That of the other basis would mislead where the two differ.

Rules
1. What is disclosed is what `Reference` sent, counted there to the bit, whoever asked for it.
2. `Reference` answers at most `parities_max` in all; a question for more is refused as a whole.
3. A parity that follows from known ones (the other half; the last block of a pass) is not asked.
4. Where answers contradict one another a bit would be corrected twice: that is refused, so that
   nothing a peer says makes `Correction` run for ever.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from qstack.apps.qkd.bits import Bits
from qstack.apps.qkd.parity_tree import (
    LONGEST_BLOCK,
    SHORTEST_BLOCK,
    Nodes,
    depth,
    later_levels,
    leaves,
    level_of,
    permutation,
    spans,
    tree,
    wanted_size,
)
from qstack.apps.qkd.reasons import AbortError, Reason

JOINT_MAX: Final = 64
"""With so few odd blocks left all passes are searched at once: fewer messages, hardly more bits."""


class Plan(Struct, frozen=True, kw_only=True):
    """What both halves must know: number of bits, passes in all, public seed of permutations."""

    n: int
    passes_max: int
    seed: bytes

    @property
    def tree_size(self) -> int:
        """Numbers a tree takes in the forest."""
        return 2 << depth(self.n)


class AskBlocks(Struct, frozen=True):
    """The parities of the blocks of pass `number`, those of `level` in its tree.

    If the pass is new: of all but the last, which follows from the parity of all (so not in the
    first pass). If it stands at the level above: of all left halves.
    """

    number: int
    level: int
    is_new: bool

    @property
    def nodes(self) -> Nodes:
        """The blocks asked for, numbered in their tree."""
        first, end = 1 << self.level, 2 << self.level
        if self.is_new:
            return np.arange(first, end - (self.number > 0), dtype=np.int64)
        return np.arange(first, end, 2, dtype=np.int64)


class AskNodes(Struct, frozen=True):
    """The parities of these nodes of the forest."""

    nodes: Nodes


class Reference:
    """The half that is right by definition. `parities_sent` is what it disclosed."""

    def __init__(self, bits: Bits, plan: Plan, parities_max: int) -> None:
        self._bits = bits
        self._plan = plan
        self._parities_max = parities_max
        self._trees: list[Bits] = []
        self._level = 0  # of the blocks of the last pass
        self.parities_sent = 0

    def blocks(self, number: int, level: int) -> Bits:
        """The parities of blocks, see `AskBlocks`.

        Raises `AbortError` unless the pass is the next one, or the last one and a level deeper.
        """
        is_new = number == len(self._trees) < self._plan.passes_max
        is_deeper = number == len(self._trees) - 1 and level == self._level + 1
        if not (is_new or is_deeper) or not 1 <= level <= depth(self._plan.n):
            raise AbortError(Reason.LIMIT, f"level {level} of pass {number} was asked for")
        nodes = AskBlocks(number, level, is_new).nodes
        self._count(nodes.size)
        if is_new:
            order = permutation(self._plan.n, self._plan.seed, number)
            self._trees.append(tree(self._bits, order))
        self._level = level
        return self._trees[-1][nodes]

    def answer(self, nodes: Nodes) -> Bits:
        """The parities of nodes. Raises `AbortError` for one there is not."""
        self._count(nodes.size)
        number, node = np.divmod(nodes, self._plan.tree_size)
        if not nodes.size or (node < 1).any() or number.max() >= len(self._trees):
            raise AbortError(Reason.MALFORMED, "a parity of no block was asked for")
        out = np.empty(nodes.size, dtype=np.uint8)
        for each, parity in enumerate(self._trees):
            chosen = number == each
            out[chosen] = parity[node[chosen]]
        return out

    def _count(self, parities: int) -> None:
        if self.parities_sent + parities > self._parities_max:
            raise AbortError(Reason.LEAK, f"at most {self._parities_max} parities are answered")
        self.parities_sent += parities


class Correction:
    """The half that corrects its copy of `bits`. Ask, take the answer, and so on until None."""

    def __init__(self, bits: Bits, plan: Plan, passes: int) -> None:
        self.bits = bits.copy()
        self._plan = plan
        self._passes = passes
        self._started = 0
        self._level = level_of(plan.n, LONGEST_BLOCK)  # of the blocks of the first pass
        self._is_sizing = False
        self._orders: list[Nodes] = []
        self._leaf = leaves(plan.n)
        self._leaf_of: list[Nodes] = []  # of each bit, in the forest, for each pass
        empty = np.zeros(0, dtype=np.uint8)
        self._here, self._there, self._known = empty, empty, empty  # by number in the forest
        self._odd: Nodes = np.zeros(0, dtype=np.int64)
        self._is_corrected = np.zeros(plan.n, dtype=np.bool_)
        self._asked: AskBlocks | AskNodes | None = None
        self._total = 0  # the parity of all bits at the other end
        self.parities = 0

    @property
    def corrected(self) -> int:
        """Bits corrected so far."""
        return int(np.count_nonzero(self._is_corrected))

    @property
    def errors_at_least(self) -> int:
        """Bits corrected, and one for each block of a pass that is odd: so many were wrong."""
        return self.corrected + int(self._of_lowest_pass().size)

    def add_pass(self) -> bool:
        """Allow one pass more; False if there is none."""
        self._passes += 1
        return self._passes <= self._plan.passes_max

    def ask(self) -> AskBlocks | AskNodes | None:
        """The next question, or None when all passes are made and nothing is odd."""
        if self._is_sizing:
            self._asked = AskBlocks(0, self._level, is_new=False)
            return self._asked
        self._correct()
        if self._odd.size:
            self._asked = AskNodes(self._left_child(self._descending()))
        elif self._started < self._passes:
            levels = later_levels(self._level, self._passes)
            self._asked = AskBlocks(self._started, levels[self._started], is_new=True)
        else:
            self._asked = None
        return self._asked

    @property
    def answer_size(self) -> int:
        """Parities in the answer to the last question."""
        return 0 if self._asked is None else int(self._asked.nodes.size)

    def take(self, parities: Bits) -> None:
        """The answer to the last question. Raises `AbortError` for a wrong number of parities."""
        if parities.size != self.answer_size:
            detail = f"{parities.size} parities in place of {self.answer_size}"
            raise AbortError(Reason.MALFORMED, detail)
        asked, self._asked = self._asked, None
        self.parities += int(parities.size)
        match asked:
            case AskBlocks(is_new=True):
                self._begin(asked, parities)
            case AskBlocks():
                self._descend(asked.nodes, parities)
                self._size()
            case AskNodes(nodes=nodes):
                self._descend(nodes, parities)
            case None:
                raise AbortError(Reason.MALFORMED, "no parity was asked for")

    # --- inside ----------------------------------------------------------------------------------

    def _begin(self, asked: AskBlocks, parities: Bits) -> None:
        size, base = self._plan.tree_size, self._started * self._plan.tree_size
        order = permutation(self._plan.n, self._plan.seed, asked.number)
        leaf_of = np.empty(self._plan.n, dtype=np.int64)
        leaf_of[order] = self._leaf + base
        self._orders.append(order)
        self._leaf_of.append(leaf_of)
        there = np.zeros(size, dtype=np.uint8)
        known = np.zeros(size, dtype=np.uint8)
        blocks = asked.nodes
        there[blocks] = parities
        if asked.number:
            last = int(blocks[-1]) + 1
            there[last] = self._total ^ int(np.bitwise_xor.reduce(parities))
            blocks = np.append(blocks, last)
        else:
            self._total = int(np.bitwise_xor.reduce(parities))
        known[blocks] = 1
        self._here = np.concatenate([self._here, tree(self.bits, order)])
        self._there = np.concatenate([self._there, there])
        self._known = np.concatenate([self._known, known])
        self._started += 1
        self._odd = self._still_odd(blocks + base)
        if asked.number == 0:
            self._size()

    def _size(self) -> None:
        """Halve all blocks of the first pass again unless they are as short as their errors want.

        Nothing is lost by beginning with long ones: a half not asked for follows from its whole.
        """
        blocks = 1 << self._level
        size = self._plan.n / blocks
        wanted = max(SHORTEST_BLOCK, wanted_size(int(self._odd.size), blocks, size))
        self._is_sizing = size > wanted and self._level < depth(self._plan.n)
        self._level += self._is_sizing

    def _descending(self) -> Nodes:
        """Which of the odd nodes are halved next: those of the lowest pass, or all few."""
        return self._odd if self._odd.size <= JOINT_MAX else self._of_lowest_pass()

    def _of_lowest_pass(self) -> Nodes:
        lowest = int(self._odd[0]) // self._plan.tree_size if self._odd.size else 0
        return self._odd[: np.searchsorted(self._odd, (lowest + 1) * self._plan.tree_size)]

    def _descend(self, left: Nodes, parities: Bits) -> None:
        parent, right = left - left % self._plan.tree_size // 2, left + 1
        self._there[left] = parities
        self._there[right] = self._there[parent] ^ parities
        self._known[left] = self._known[right] = 1
        self._odd = self._still_odd(np.concatenate([self._odd, left, right]))

    def _still_odd(self, nodes: Nodes) -> Nodes:
        """Those that are known, undivided and odd, each once and in order."""
        nodes = np.unique(nodes)
        is_odd = self._here[nodes] != self._there[nodes]
        nodes = nodes[is_odd]
        return nodes[self._is_undivided(nodes)]

    def _left_child(self, nodes: Nodes) -> Nodes:
        return nodes + nodes % self._plan.tree_size

    def _is_undivided(self, nodes: Nodes) -> npt.NDArray[np.bool_]:
        is_last = nodes % self._plan.tree_size >= self._plan.tree_size // 2
        children = np.where(is_last, nodes, self._left_child(nodes))
        is_undivided: npt.NDArray[np.bool_] = is_last | (self._known[children] == 0)
        return is_undivided

    def _correct(self) -> None:
        """Correct the bits that odd nodes of one bit tell, until there is no such node."""
        while self._odd.size:
            number, node = np.divmod(self._odd, self._plan.tree_size)
            place, length = spans(self._plan.n, node)
            is_single = length == 1
            if not is_single.any():
                return
            found = [
                self._orders[each][place[is_single & (number == each)]]
                for each in range(self._started)
            ]
            self._flip(np.unique(np.concatenate(found)))

    def _flip(self, positions: Nodes) -> None:
        if self._is_corrected[positions].any():
            raise AbortError(Reason.RECONCILIATION, "the parities contradict one another")
        self._is_corrected[positions] = True
        self.bits[positions] ^= 1
        touched = [self._odd]
        shifts = np.arange(depth(self._plan.n) + 1)
        for number, leaf_of in enumerate(self._leaf_of):
            base = number * self._plan.tree_size
            path = ((leaf_of[positions] - base)[:, None] >> shifts) + base  # leaf first, root last
            np.bitwise_xor.at(self._here, path.ravel(), 1)
            smallest = np.argmax(self._known[path], axis=1)
            touched.append(path[np.arange(positions.size), smallest])
        self._odd = self._still_odd(np.concatenate(touched))
