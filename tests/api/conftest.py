"""What all tests of the application interface use: a run folder, and one fake node in it."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.api.fake_node import FakeNode, running


@pytest.fixture
def run_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="qstack-") as folder:
        monkeypatch.setenv("QSTACK_RUN", folder)
        monkeypatch.delenv("QSTACK_NODE", raising=False)
        yield Path(folder)


@pytest.fixture
async def alice(run_folder: Path) -> AsyncIterator[FakeNode]:
    """A fake node named alice."""
    async with running(FakeNode("alice"), run_folder) as node:
        yield node
