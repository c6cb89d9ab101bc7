"""The last of the fuzz soak: `./run test -m soak tests/fuzz`."""

import sys

import pytest

from tests.fuzz import tally


@pytest.mark.soak
def test_the_soak_had_a_hundred_thousand_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    missing = [group for group in tally.GROUPS if not tally.INPUTS[group]]
    if missing:
        pytest.skip(f"not all of the soak was run: no {', '.join(missing)}")
    total = tally.INPUTS.total()
    with capsys.disabled():
        each = ", ".join(f"{group} {count}" for group, count in sorted(tally.INPUTS.items()))
        sys.stdout.write(f"\n{total} inputs: {each}\n")
    assert total >= tally.WANTED
    assert tally.INPUTS["daemons"] >= 20_000
