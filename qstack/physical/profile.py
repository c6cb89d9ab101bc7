"""Hardware profiles: what the quantum hardware of one node does, as plain numbers with sources.

In the file every number travels with its source and a mark for how well it is known:

    t2_s = { value = 0.085, source = "arXiv:2207.10579, appendix A.6", mark = "published" }

Rules
1. The unit is in the name, nothing has a default: a number that is left out is an error.
2. Marks: `published` was read in its source (or follows from such numbers alone), `recalled` was
   not read again, `projected` is better than anybody has published, `assumed` is not given by
   the source of the others. Results name the projected and the assumed ones.
3. A depolarising probability p is r -> (1-p) r + p I/2: a Bell pair keeps 1 - 3p/4.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

from qstack.physical.document import (
    DocumentError,
    check_keys,
    expected,
    join,
    parse_toml,
    read_table,
    read_value,
    shown,
)
from qstack.physical.models.decoupling import Axis

DecayLaw = Literal["exponential", "gaussian"]
Topology = Literal["all-to-all", "star"]
Mark = Literal["published", "recalled", "projected", "assumed"]

Label = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9][a-z0-9-]{0,62}\Z",
        description="a name of small letters, digits and hyphens",
    ),
]
Wavelength = Annotated[float, Meta(ge=100, le=20_000, description="nanometres, 100 to 20000")]
Probability = Annotated[float, Meta(ge=0, le=1, description="a probability, 0 to 1")]
Coupling = Annotated[float, Meta(gt=0, le=1, description="a probability, above 0, at most 1")]
Fidelity = Annotated[float, Meta(ge=0.25, le=1, description="a fidelity, 0.25 to 1")]
Dephasing = Annotated[float, Meta(ge=0, le=0.5, description="a probability, 0 to 0.5")]
BrightState = Annotated[float, Meta(gt=0, lt=1, description="a probability above 0 and below 1")]
Phase = Annotated[float, Meta(ge=0, le=10, description="radians, 0 to 10")]
DecayTime = Annotated[float, Meta(gt=0, description="seconds, above 0 (inf: no decay)")]
Latency = Annotated[
    int, Meta(ge=1, le=10**12, description="whole nanoseconds, at least 1 and at most 10^12")
]
"""A duration another participant waits for: the clock's window needs 1 ns or more."""
Duration = Annotated[int, Meta(ge=0, le=10**12, description="whole nanoseconds, 0 to 10^12")]
CommunicationQubits = Annotated[
    int, Meta(ge=1, le=4096, description="a whole number of qubits, 1 to 4096")
]
Parts = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=80)], ...],
    Meta(max_length=16, description="a list of at most 16 short texts"),
]


class Provenance(Struct, frozen=True):
    """Where the number `key` of a profile comes from."""

    key: str
    source: str
    mark: Mark


class Profile(Struct, frozen=True, kw_only=True):
    """The hardware of one node.

    `coupling` is the probability that an emitted photon is detected were there no fibre; what it
    holds is listed in `coupling_includes`. `visibility`, `phase_sigma_rad`,
    `double_excitation` (the dephasing it causes to a pair) and `dark_count_probability` (per
    detector and window) are those of a link between two such nodes.
    `init_fidelity` is the probability that a fresh qubit is in state 0 rather than 1;
    `readout_f0`, `readout_f1` that state 0, 1 is read as such. `attempt_dephasing` strikes each
    idle qubit of the node at each attempt made there. `bright_state_default` is alpha of
    single-click, `comm_qubits` how many qubits can emit photons, `parallel_links` whether they
    may do so for different links at once.
    Before a batch of attempts the device may check that it can attempt (charge and resonance of a
    colour centre, an ion in the trap): tries of `ready_check_ns`, each of which passes with
    `ready_check_pass`, until one does. Both are left out where there is no such check.
    `topology` says which qubits a two-qubit gate may join: any two (`all-to-all`, also where it is
    left out), or only a communication qubit with another one (`star`: electron and carbons).
    `t1_s`, `t2_s` are those of where qubits rest; `comm_t1_s`, `comm_t2_s` of communication qubits,
    where they are others.
    Qubits that wait may be decoupled by pi pulses every `decoupling_spacing_ns` about
    `decoupling_axis` (`models/decoupling.py`); both are left out where nobody has to count them.
    """

    name: Label
    platform: Label
    wavelength_nm: Wavelength
    converted_to_nm: Wavelength | None
    coupling: Coupling
    coupling_includes: Parts
    visibility: Probability
    dark_count_probability: Probability
    number_resolving: bool
    t_init_ns: Latency
    t_emit_ns: Latency
    init_fidelity: Probability
    emission_fidelity: Fidelity
    double_excitation: Dephasing
    phase_sigma_rad: Phase
    bright_state_default: BrightState
    t1_s: DecayTime
    t2_s: DecayTime
    decay_law: DecayLaw
    attempt_dephasing: Dephasing
    gate_1q_ns: Duration
    gate_1q_depolarising: Probability
    gate_2q_ns: Duration
    gate_2q_depolarising: Probability
    readout_ns: Latency
    readout_f0: Probability
    readout_f1: Probability
    move_ns: Duration
    move_depolarising: Probability
    comm_qubits: CommunicationQubits
    parallel_links: bool
    ready_check_ns: Latency | None = None
    ready_check_pass: Coupling | None = None
    topology: Topology | None = None
    comm_t1_s: DecayTime | None = None
    comm_t2_s: DecayTime | None = None
    decoupling_spacing_ns: Latency | None = None
    decoupling_axis: Axis | None = None
    sources: tuple[Provenance, ...] = ()

    @property
    def provenance(self) -> dict[str, Provenance]:
        """The source and mark of each number, by its key."""
        return {source.key: source for source in self.sources}

    @property
    def projected(self) -> list[str]:
        """The keys of the numbers that are better than anybody has published."""
        return self._marked("projected")

    @property
    def assumed(self) -> list[str]:
        """The keys of the numbers that the source of the others does not give."""
        return self._marked("assumed")

    def _marked(self, mark: Mark) -> list[str]:
        return [source.key for source in self.sources if source.mark == mark]

    def decay_times_s(self, *, is_stored: bool) -> tuple[float, float]:
        """T1 and T2 of a qubit in storage, or on a communication qubit."""
        if is_stored or self.comm_t1_s is None or self.comm_t2_s is None:
            return self.t1_s, self.t2_s
        return self.comm_t1_s, self.comm_t2_s

    @property
    def fibre_nm(self) -> float:
        """The wavelength (nm) of the photon that enters the fibre."""
        return self.wavelength_nm if self.converted_to_nm is None else self.converted_to_nm


class ProfileError(DocumentError):
    """A hardware profile cannot be used."""


class _Entry(Struct, frozen=True):
    """One line of the file; the value's type is that of the profile's field."""

    value: Any
    source: Annotated[
        str, Meta(min_length=1, max_length=500, description="where the value comes from, in words")
    ]
    mark: Mark


_PLAIN = ("name", "platform")
# Left out where there is no converter, no check, no fixed delay, a rate that stays, nothing
# measured: TOML has no null.
_OPTIONAL = (
    "converted_to_nm", "ready_check_ns", "ready_check_pass", "fixed_delay_s", "topology",
    "comm_t1_s", "comm_t2_s", "decoupling_spacing_ns", "decoupling_axis", "ageing_ppb_per_day",
    "rate_wander_ppb_per_root_day", "measured_asymmetry_ps",
)  # fmt: skip


def parse_profile(text: str, *, where: str) -> Profile:
    """The profile in a TOML text; `where` names it in errors.

    Raises `ProfileError` with every problem found.
    """
    try:
        raw = parse_toml(text)
    except ValueError as error:
        raise ProfileError(where, [f"is not TOML: {error}"]) from error
    problems: list[str] = []
    kind = raw.pop("kind", "node")
    if kind != "node":
        problem = f'kind: {shown(kind)} is not a node; expected a profile of kind "node"'
        raise ProfileError(where, [problem])
    kinds = {field.name: field.type for field in structs.fields(Profile)}
    del kinds["sources"]
    values, sources = read_entries(raw, kinds, "", problems)
    _cross_check(values, problems)
    if problems:
        raise ProfileError(where, problems)
    return Profile(**values, sources=tuple(sources))


def read_entries(
    raw: dict[str, Any], kinds: dict[str, object], path: str, problems: list[str]
) -> tuple[dict[str, Any], list[Provenance]]:
    """The numbers of the table at `path`, by the types of their keys, and where they come from.

    A line in `problems` for everything that is wrong.
    """
    meant = check_keys(raw, list(kinds), path, problems)
    values: dict[str, Any] = {}
    sources: list[Provenance] = []
    for key, kind in kinds.items():
        at = join(path, key)
        if key in raw:
            values[key], provenance = _read(raw[key], key, kind, at, problems)
            sources += provenance
        elif key in _OPTIONAL:
            values[key] = None
        elif key not in meant:
            problems.append(f"{at}: is missing; expected {_expected_line(key, kind)}")
    return values, sources


def _read(
    raw: object, key: str, kind: object, at: str, problems: list[str]
) -> tuple[object, list[Provenance]]:
    if key in _PLAIN:
        return read_value(raw, kind, at, problems), []
    if not isinstance(raw, dict):
        problems.append(f"{at}: is a bare value; expected {_expected_line(key, kind)}")
        return None, []
    entry = read_table(raw, _Entry, at, problems)
    path = join(at, "value")
    value = read_value(raw["value"], kind, path, problems) if "value" in raw else None
    return value, [] if entry is None else [Provenance(key, entry.source, entry.mark)]


def _expected_line(key: str, kind: object) -> str:
    if key in _PLAIN:
        return expected(kind)
    return f"{{ value = ..., source = ..., mark = ... }} with {expected(kind)}"


def _cross_check(values: dict[str, Any], problems: list[str]) -> None:
    """What no single number can tell: coherence cannot outlive the populations twice over."""
    for first, second in (
        ("ready_check_ns", "ready_check_pass"),
        ("comm_t1_s", "comm_t2_s"),
        ("decoupling_spacing_ns", "decoupling_axis"),
    ):
        if (values.get(first) is None) != (values.get(second) is None):
            problems.append(f"{first}, {second}: one without the other; expected both")
    for first, second in (("t1_s", "t2_s"), ("comm_t1_s", "comm_t2_s")):
        t1_s, t2_s = values.get(first), values.get(second)
        if t1_s is not None and t2_s is not None and t2_s > 2 * t1_s:
            problems.append(
                f"{second}.value: {t2_s} s is longer than 2 x {first} = {2 * t1_s} s; expected "
                "T2 <= 2 T1"
            )
