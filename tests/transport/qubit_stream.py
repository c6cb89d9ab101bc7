"""A world with an open qubit stream."""

from qstack.transport import service
from tests.transport.world import MS, World, assert_idle


class Pair:
    """A world with an open qubit stream from alice to bob."""

    def __init__(self, **world: int) -> None:
        self.world = World("alice", "bob", **world)
        self.here, self.there = self.world.session("alice"), self.world.session("bob")
        accept = self.there.accept(self.there.listen(5))
        opened = self.here.stream("qubit", "bob", 5)
        self.world.run(20 * MS)
        self.out, self.into = self.here.socket(opened), self.there.socket(accept)

    def expect_arrived(self, payloads: list[str]) -> None:
        arrived = self.there.of(service.QubitArrived)
        halves = [self.world.half(self.there, each.qubit) for each in arrived]
        assert [half.payload for half in halves] == payloads
        assert all((half.x, half.z) == (0, 0) for half in halves)
        assert [each.sequence for each in arrived] == sorted(each.sequence for each in arrived)

    def close(self) -> None:
        self.here.close(self.out)
        self.there.close(self.into)
        self.world.run()
        for name, node in self.world.nodes.items():
            assert not self.world.held(name)
            assert_idle(node.layer)
