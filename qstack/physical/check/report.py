"""All checks of a driver, and a verdict for each."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from msgspec import Struct

from qstack.physical.check import functional, programs, statistical
from qstack.physical.check.bench import Bench, CheckFailedError, NotOfferedError
from qstack.physical.check.world import check_world
from qstack.physical.drivers.setup import DriverError, MakeDevice, Setup
from qstack.physical.hardware import Scheme
from qstack.physical.profile import Profile

Kind = Literal["functional", "statistical"]


class Verdict(Struct, frozen=True, kw_only=True):
    """What came of one check; `not-offered` is no failure: the driver said that it cannot."""

    check: str
    kind: Kind
    verdict: Literal["passed", "failed", "not-offered"]
    detail: str


def check_driver(
    make: MakeDevice,
    profile: Profile,
    *,
    scheme: Scheme = "double-click",
    seed: int = 1,
    setup: Setup | None = None,
) -> Iterator[Verdict]:
    """The verdicts, as they come. Each check makes the devices anew.

    `setup` has the options and files the driver is made with, if it needs any. Raises
    `DriverError` if the driver cannot be made with them.
    """
    world = check_world(profile, scheme)
    has_two_ends = getattr(make, "has_two_ends", False)

    def bench() -> Bench:
        return Bench(make, world, seed, setup)

    functions = functional.FUNCTIONAL | programs.PROGRAMS
    functions |= functional.TWO_ENDS if has_two_ends else {}
    for name, check in functions.items():
        yield _verdict(name, "functional", check, bench)
    counts = statistical.STATISTICAL | (statistical.TWO_ENDS if has_two_ends else {})
    for name, count in counts.items():
        yield _verdict(name, "statistical", partial(_judge, count), bench)


def _judge(count: statistical.Count, on: Bench) -> str:
    return statistical.judged(count(on))


def _verdict(
    name: str, kind: Kind, check: Callable[[Bench], str], make_bench: Callable[[], Bench]
) -> Verdict:
    verdict: Literal["passed", "failed", "not-offered"]
    try:
        detail, verdict = check(make_bench()), "passed"
    except NotOfferedError as reason:
        detail, verdict = str(reason), "not-offered"
    except CheckFailedError as reason:
        detail, verdict = str(reason), "failed"
    except DriverError:
        raise  # it is not the driver that is wrong, but what it was given
    except Exception as error:  # noqa: BLE001 - a driver under check may raise anything
        detail, verdict = f"it raised {type(error).__name__}: {error}", "failed"
    return Verdict(check=name, kind=kind, verdict=verdict, detail=detail)
