"""The base of everything whose numbers travel with their sources and marks (`profile.py`)."""

from typing import Self

from msgspec import Struct, structs

from qstack.physical.profile import Mark, Provenance


class Sourced(Struct, frozen=True, kw_only=True):
    """Numbers, and where each comes from."""

    sources: tuple[Provenance, ...] = ()

    @property
    def provenance(self) -> dict[str, Provenance]:
        """The source and mark of each number, by its key."""
        return {source.key: source for source in self.sources}

    def marked(self, mark: Mark) -> list[str]:
        """The keys of the numbers with this mark."""
        return [source.key for source in self.sources if source.mark == mark]

    def plain(self) -> Self:
        """The same numbers, without where they come from."""
        return structs.replace(self, sources=())

    @property
    def projected(self) -> list[str]:
        """The keys of the numbers that are better than anybody has published."""
        return self.marked("projected")

    @property
    def assumed(self) -> list[str]:
        """The keys of the numbers that the source of the others does not give."""
        return self.marked("assumed")
