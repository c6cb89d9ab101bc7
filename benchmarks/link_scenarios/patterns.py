"""Who asks a link for what, how often, and how the link is scheduled: the scenarios as numbers.

The study has three uses of a link: NL (the network layer makes long-distance pairs), CK (an
application creates pairs and keeps them), MD (pairs are measured directly). `load` is the part of
the link's time that is asked for: a use with share s of load f asks for f s pairs in the mean time
of a pair. Both ends ask equally often.

Loads, patterns, weights and numbers of pairs are those of the authors' simulation files; the mean
time of a pair is that of this stack's own device: attempts, and the move into memory.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from qstack.link.params import Weight
from qstack.physical.prediction import generation_options
from qstack.physical.service import GenerationOption
from qstack.runtime.network_file import Network, parse_network

Use = Literal["NL", "CK", "MD"]
USES: Final[tuple[Use, ...]] = ("NL", "CK", "MD")
ENDS: Final = ("alice", "bob")
LOADS: Final = {"low": 0.7, "high": 0.99, "ultra": 1.5}
MIN_FIDELITY: Final = 0.64
FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Pattern:
    """Shares of the load, and the fewest and most pairs of a request; any number between."""

    shares: dict[Use, float]
    pairs: dict[Use, tuple[int, int]]


def _pattern(shares: tuple[float, float, float], longest: tuple[int, int, int]) -> Pattern:
    pairs = {use: (1, most) for use, most in zip(USES, longest, strict=True)}
    return Pattern(dict(zip(USES, shares, strict=True)), pairs)


_THIRDS: Final[dict[Use, float]] = {"NL": 1 / 3, "CK": 1 / 3, "MD": 1 / 3}
_FIXED: Final[dict[Use, tuple[int, int]]] = {"NL": (2, 2), "CK": (2, 2), "MD": (10, 10)}

PATTERNS: Final = {
    # The two with which the study compares schedulers: always 2, 2 and 10 pairs.
    "equal": Pattern(_THIRDS, _FIXED),
    "no-nl": Pattern({"NL": 0.0, "CK": 1 / 5, "MD": 4 / 5}, _FIXED),
    # Its mixed scenarios.
    "uniform": _pattern((1 / 3, 1 / 3, 1 / 3), (1, 1, 1)),
    "more-nl": _pattern((4 / 6, 1 / 6, 1 / 6), (3, 3, 255)),
    "more-ck": _pattern((1 / 6, 4 / 6, 1 / 6), (3, 3, 255)),
    "more-md": _pattern((1 / 6, 1 / 6, 4 / 6), (3, 3, 255)),
    "no-nl-more-ck": _pattern((0.0, 4 / 5, 1 / 5), (3, 3, 255)),
    "no-nl-more-md": _pattern((0.0, 1 / 5, 4 / 5), (3, 3, 255)),
    # And those of one use alone.
    "only-nl": _pattern((1.0, 0.0, 0.0), (3, 3, 255)),
    "only-ck": _pattern((0.0, 1.0, 0.0), (3, 3, 255)),
    "only-md": _pattern((0.0, 0.0, 1.0), (3, 3, 255)),
}


@dataclass(frozen=True)
class Scheduler:
    """How the link is shared: weights of the network file, priorities and who is atomic.

    First come, first served is one priority of atomic requests: each is served to its end, in the
    order of the shared queue. With weights NL is strict, CK and MD share. NL and CK are atomic
    there, MD is not, as in the authors' files.
    """

    weights: tuple[Weight, ...] | None
    priorities: dict[Use, int]
    atomic: dict[Use, bool]


def _fair(ck: int) -> Scheduler:
    return Scheduler(
        weights=(1, ck, "strict", 1, 1, 1, 1, 1),
        priorities={"NL": 2, "CK": 1, "MD": 0},
        atomic={"NL": True, "CK": True, "MD": False},
    )


SCHEDULERS: Final = {
    "fcfs": Scheduler(None, dict.fromkeys(USES, 0), dict.fromkeys(USES, True)),
    "lower-wfq": _fair(2),
    "higher-wfq": _fair(10),
}


@dataclass(frozen=True)
class Setup:
    """One of the two links of the study. Lengths in metres, attenuation in dB/km."""

    profile: str
    length_m: float
    station: str
    attenuation_db_per_km: float

    def network(self, weights: tuple[Weight, ...] | None = None) -> Network:
        """The network file of the link, read."""
        shares = "" if weights is None else f"link_weights = {list(weights)!r}\n"
        nodes = "".join(
            f'[[node]]\nname = "{end}"\naddress = "127.0.0.1:0"\nprofile = "{self.profile}"\n'
            "memory = 2\n\n"
            for end in ENDS
        )
        text = (
            f'[network]\nname = "scenario"\n{shares}\n[fabric]\naddress = "127.0.0.1:0"\n\n{nodes}'
            f"[[link]]\nends = {list(ENDS)!r}\nlength_m = {self.length_m}\n"
            f'scheme = "single-click"\nstation = {self.station}\n'
            f"attenuation_db_per_km = {self.attenuation_db_per_km}\n"
        )
        return parse_network(text, where="scenario", folder=FOLDER)

    @cached_property
    def _plain(self) -> Network:
        return self.network()

    def option(self, min_fidelity: float) -> GenerationOption:
        """The fastest way to run the link that keeps a fidelity, as the link layer chooses it.

        Raises ValueError where there is none.
        """
        (link,) = self._plain.links.values()
        options = generation_options(self._plain.world, link)
        good = [each for each in options if each.bell_probabilities[0] >= min_fidelity]
        if not good:
            best = max(each.bell_probabilities[0] for each in options)
            raise ValueError(f"this link gives a fidelity of {best:.4f} at best")
        return max(good, key=lambda each: each.probability / each.cycle_ns)

    def pair_ns(self, use: Use, min_fidelity: float) -> float:
        """The mean time of a pair if the link serves only this use."""
        option = self.option(min_fidelity)
        if use == "MD":
            return option.measure_cycle_ns / option.probability
        move_ns = self._plain.world.nodes[ENDS[0]].profile.move_ns
        return option.cycle_ns / option.probability + move_ns


SETUPS: Final = {
    "lab": Setup("nv-lab", 2.0, '"midpoint"', 5.0),
    "ql2020": Setup("nv-ql2020.toml", 25_000.0, "10_000", 0.5),
}


@dataclass(frozen=True, order=True)
class Scenario:
    """One cell of the study, by the names of its parts; `loss` is of link messages."""

    setup: str
    pattern: str
    load: float
    scheduler: str
    loss: float = 0.0
    min_fidelity: float = MIN_FIDELITY

    @property
    def uses(self) -> list[Use]:
        """The uses that ask for anything."""
        shares = PATTERNS[self.pattern].shares
        return [use for use in USES if shares[use] > 0.0]

    def requests_hz(self, use: Use) -> float:
        """Requests a second from each end."""
        pattern = PATTERNS[self.pattern]
        mean_pairs = sum(pattern.pairs[use]) / 2
        pair_s = SETUPS[self.setup].pair_ns(use, self.min_fidelity) / 1e9
        return self.load * pattern.shares[use] / (mean_pairs * pair_s * len(ENDS))
