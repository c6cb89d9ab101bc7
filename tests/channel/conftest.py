"""The fixtures of the channel tests: two authorities, and two kinds of wires."""

from typing import Any

import pytest

from tests.channel.peers import World, loopback, memory


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Another authority, for a network of the same name."""
    return World(tmp_path_factory.mktemp("abroad"))


@pytest.fixture(params=[loopback, memory], ids=["loopback", "memory"])
def wires(request: pytest.FixtureRequest) -> Any:
    return request.param
