"""Graph structures, each kept once for however many segments were recorded on it."""

from dataclasses import replace

from tamiyo.learn.observations import GraphStructure
from tamiyo.learn.segments import Segment

__all__ = ["StructurePool"]


class StructurePool:
    """Counts which structures are in use; one that no segment uses is forgotten."""

    def __init__(self) -> None:
        self._structures: dict[str, GraphStructure] = {}
        self._uses: dict[str, int] = {}
        self.nbytes = 0
        """Memory of all structures."""

    def __len__(self) -> int:
        return len(self._structures)

    def extra_bytes(self, segment: Segment) -> int:
        """By how much taking this segment in would add to `nbytes`."""
        structures = {block.structure.key: block.structure for block in segment.blocks}
        return sum(
            structure.nbytes for key, structure in structures.items() if key not in self._structures
        )

    def take(self, segment: Segment) -> Segment:
        """The same segment on the pool's structures."""
        shared = [block.with_structure(self._use(block.structure)) for block in segment.blocks]
        if all(new is old for new, old in zip(shared, segment.blocks, strict=True)):
            return segment
        successor = None if segment.successor is None else shared[1]
        return replace(segment, observations=shared[0], successor=successor)

    def release(self, segment: Segment) -> None:
        """Give back what `take` took."""
        for block in segment.blocks:
            key = block.structure.key
            self._uses[key] -= 1
            if not self._uses[key]:
                self.nbytes -= self._structures.pop(key).nbytes
                del self._uses[key]

    def _use(self, structure: GraphStructure) -> GraphStructure:
        key = structure.key
        if key not in self._structures:
            self._structures[key] = structure
            self._uses[key] = 0
            self.nbytes += structure.nbytes
        self._uses[key] += 1
        return self._structures[key]
