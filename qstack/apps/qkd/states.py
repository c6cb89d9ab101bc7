"""Life of one run, at alice (who made the pairs, and whose bits are the reference) and at bob.

Alice:

    NEW -begun-> GREETING -hello-> MEASURING -measured-> AHEAD -peer measured-> SIFTING
                                        +-peer measured-> BEHIND -measured---------^
    SIFTING -bases-> TESTING -outcomes-> RECONCILING <-query-+
                                              | ^ +----------+
                                    corrected | | unverified
                                              v |
                                          VERIFYING -verified-> AUTHENTICATING -tag-> CONFIRMING
    CONFIRMING -confirmed-> DONE

Bob:

    NEW -begun-> GREETING -hello-> MEASURING -measured-> SIFTING -bases-> TESTING -outcomes->
    READY -seed of permutations-> RECONCILING <-parities-+
                                     | ^ +---------------+
                           corrected | | unverified
                                     v |
                                  VERIFYING -verified-> AUTHENTICATING -tag-> AMPLIFYING
    AMPLIFYING -seed-> RELEASING -released-> CONFIRMING -confirmed-> DONE

From every state but DONE a failure leads to ABORTED, for good.

Who may have a key when a message is lost: nobody before CONFIRMING. Alice in CONFIRMING has given
bob what he needs to compute it, and gives no key out until he confirms. Bob in CONFIRMING has
confirmed, and gives none out until alice does. If bob's confirmation is lost nobody has a key. If
alice's is lost she has one and he, who cannot know, discards his: hers is then equal to nobody's,
and a use of it by its id fails at bob. That is the only way the two can differ. What comes after
DONE is ignored.
"""

from enum import auto
from typing import Final

from qstack.table import Member, Table


class State(Member):
    """Where a run stands."""

    NEW = auto()
    GREETING = auto()  # our terms are said
    MEASURING = auto()  # both agree; pairs are measured
    AHEAD = auto()  # alice: measured here, not yet at bob
    BEHIND = auto()  # alice: measured at bob, not yet here
    SIFTING = auto()  # the peer's bases are on their way
    TESTING = auto()  # the peer's test outcomes are on their way
    READY = auto()  # bob: correction may begin when alice says so
    RECONCILING = auto()
    VERIFYING = auto()
    AUTHENTICATING = auto()  # the peer's tag of the transcript is on its way
    AMPLIFYING = auto()  # bob: the seed is on its way
    RELEASING = auto()  # bob: the seed's tag is on its way
    CONFIRMING = auto()  # the key is computed, the peer's confirmation on its way
    DONE = auto()
    ABORTED = auto()


class Input(Member):
    """What can happen to it."""

    BEGUN = auto()
    HELLO = auto()  # peer: its terms are ours
    MEASURED = auto()  # here
    PEER_MEASURED = auto()
    PART = auto()  # peer: bits that are not the last of their kind
    BASES = auto()  # peer: the last of them
    OUTCOMES = auto()  # peer: the last of them
    SEED_OF_PERMUTATIONS = auto()
    QUERY = auto()  # bob asks for parities
    PARITIES = auto()  # alice answers
    CORRECTED = auto()  # nothing more to ask
    UNVERIFIED = auto()
    VERIFIED = auto()
    TAG = auto()  # peer: of the transcript, and it is right
    SEED = auto()  # peer: the last part
    RELEASED = auto()  # peer: the seed's tag, and it is right
    CONFIRMED = auto()  # peer
    FAILURE = auto()  # anything else, at either end


_S = State
_I = Input
_FAILURES: Final[dict[tuple[State, Input], State]] = {
    (state, _I.FAILURE): _S.ABORTED for state in State if state not in {_S.DONE, _S.ABORTED}
}

ALICE: Final = Table(
    _S.NEW,
    {
        (_S.NEW, _I.BEGUN): _S.GREETING,
        (_S.GREETING, _I.HELLO): _S.MEASURING,
        (_S.MEASURING, _I.MEASURED): _S.AHEAD,
        (_S.MEASURING, _I.PEER_MEASURED): _S.BEHIND,
        (_S.AHEAD, _I.PEER_MEASURED): _S.SIFTING,
        (_S.BEHIND, _I.MEASURED): _S.SIFTING,
        (_S.SIFTING, _I.PART): _S.SIFTING,
        (_S.SIFTING, _I.BASES): _S.TESTING,
        (_S.TESTING, _I.PART): _S.TESTING,
        (_S.TESTING, _I.OUTCOMES): _S.RECONCILING,
        (_S.RECONCILING, _I.QUERY): _S.RECONCILING,
        (_S.RECONCILING, _I.CORRECTED): _S.VERIFYING,
        (_S.VERIFYING, _I.UNVERIFIED): _S.RECONCILING,
        (_S.VERIFYING, _I.VERIFIED): _S.AUTHENTICATING,
        (_S.AUTHENTICATING, _I.TAG): _S.CONFIRMING,
        (_S.CONFIRMING, _I.CONFIRMED): _S.DONE,
        **_FAILURES,
    },
)

BOB: Final = Table(
    _S.NEW,
    {
        (_S.NEW, _I.BEGUN): _S.GREETING,
        (_S.GREETING, _I.HELLO): _S.MEASURING,
        (_S.MEASURING, _I.MEASURED): _S.SIFTING,
        (_S.SIFTING, _I.PART): _S.SIFTING,
        (_S.SIFTING, _I.BASES): _S.TESTING,
        (_S.TESTING, _I.PART): _S.TESTING,
        (_S.TESTING, _I.OUTCOMES): _S.READY,
        (_S.READY, _I.SEED_OF_PERMUTATIONS): _S.RECONCILING,
        (_S.RECONCILING, _I.PARITIES): _S.RECONCILING,
        (_S.RECONCILING, _I.CORRECTED): _S.VERIFYING,
        (_S.VERIFYING, _I.UNVERIFIED): _S.RECONCILING,
        (_S.VERIFYING, _I.VERIFIED): _S.AUTHENTICATING,
        (_S.AUTHENTICATING, _I.TAG): _S.AMPLIFYING,
        (_S.AMPLIFYING, _I.PART): _S.AMPLIFYING,
        (_S.AMPLIFYING, _I.SEED): _S.RELEASING,
        (_S.RELEASING, _I.RELEASED): _S.CONFIRMING,
        (_S.CONFIRMING, _I.CONFIRMED): _S.DONE,
        **_FAILURES,
    },
)
