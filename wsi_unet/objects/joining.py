"""Joining components across blocks, row by row.

What touches faces says which components of several blocks are one, so its first pixel and bounding
box, and which block finishes it. Only what may still grow is held: the components that reach the
bottom of the last row of blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.metrics.components import CHUNK_BITS, ChunkEdges, find_touching_of_rows
from wsi_unet.objects.faces import BOTTOM, NO_FACES, Faces


@dataclass(frozen=True, order=True)
class Component:
    """A component that touches a shared face of a block.

    Attributes:
        first: its first pixel (y, x), px of the labels.
        box: its bounding box, px of the labels.
        members: (block, number in it) of its parts.
    """

    first: tuple[int, int]
    box: Box
    members: tuple[tuple[BlockIndex, int], ...] = field(repr=False)

    @property
    def blocks(self) -> list[BlockIndex]:
        """The blocks that it lies in."""
        return sorted({block for block, _ in self.members})


class _Group:
    """Parts of components that are one so far; `find` leads to the group that holds them all."""

    __slots__ = ("box", "first", "members", "parent")

    def __init__(
        self, first: tuple[int, int], box: Box, members: list[tuple[BlockIndex, int]]
    ) -> None:
        self.first = first
        self.box = box
        self.members = members
        self.parent: _Group | None = None

    def find(self) -> _Group:
        group = self
        while group.parent is not None:
            if group.parent.parent is not None:
                group.parent = group.parent.parent
            group = group.parent
        return group

    def join(self, other: _Group) -> None:
        """Make one group of two; both must be their own `find`."""
        if self is other:
            return
        large, small = (self, other) if len(self.members) >= len(other.members) else (other, self)
        large.first = min(large.first, small.first)
        large.box = large.box.union(small.box)
        large.members += small.members
        small.parent, small.members = large, []


class FaceJoiner:
    """Takes the faces of blocks, and yields the blocks whose components are known for good.

    Args:
        grid: the blocks.
        blocks: those that have faces; the others are background.
    """

    def __init__(self, grid: BlockGrid, blocks: Collection[BlockIndex]) -> None:
        self._grid = grid
        self._rows: dict[int, list[BlockIndex]] = {}
        for block in sorted(blocks):
            self._rows.setdefault(block[0], []).append(block)
        self._faces: dict[BlockIndex, Faces] = {}
        self._next_row = 0
        self._above: dict[BlockIndex, ChunkEdges] = {}
        self._open: dict[int, _Group] = {}  # of components at the bottom of the last row
        self._closed: dict[BlockIndex, list[Component]] = {}
        self._undecided: list[BlockIndex] = []

    def add(self, block: BlockIndex, faces: Faces) -> Iterator[tuple[BlockIndex, list[Component]]]:
        """Take the faces of a block; yield the blocks that are decided by now.

        With each goes what begins in it and touches a face that it shares, in order of first
        pixels. Blocks come in order of their rows, unless a component that begins in one goes on.
        """
        self._faces[block] = faces
        while self._next_row < self._grid.size[0]:
            row = self._rows.get(self._next_row, [])
            if any(each not in self._faces for each in row):
                return
            self._join_row(row)
            self._next_row += 1
            yield from self._take_decided()

    def _join_row(self, row: list[BlockIndex]) -> None:
        """Join the components of a row of blocks with each other and those above."""
        _, columns = self._grid.size
        groups, edges, bottom = self._open, {}, []
        for column in range(columns):
            block = self._next_row, column
            faces = self._faces.pop(block, NO_FACES)
            number = self._next_row * columns + column
            edges[block] = faces.to_edges(self._grid.core(block), number)
            keys = (((number + 1) << CHUNK_BITS) + faces.numbers.astype(np.int64)).tolist()
            for key, own, first, box in zip(
                keys,
                faces.numbers.tolist(),
                faces.first.tolist(),
                faces.boxes.tolist(),
                strict=True,
            ):
                groups[key] = _Group((first[0], first[1]), Box(*box), [(block, own)])
            below = np.unique(faces.runs[faces.runs[:, 0] == BOTTOM, 3])
            bottom += [keys[which] for which in below.tolist()]
        for pairs in find_touching_of_rows(self._above, edges):
            for one, other in pairs.T.tolist():
                groups[one].find().join(groups[other].find())
        self._open = {key: groups[key].find() for key in bottom}
        growing = {*map(id, self._open.values())}
        self._close(groups, growing)
        self._above = edges
        self._undecided += row

    def _close(self, groups: Mapping[int, _Group], growing: Collection[int]) -> None:
        """Note the components that don't reach the bottom of the row."""
        whole = {id(group): group for group in (each.find() for each in groups.values())}
        for number, group in whole.items():
            if number in growing:
                continue
            members = tuple(sorted(group.members))
            component = Component(group.first, group.box, members)
            self._closed.setdefault(self._owner(group), []).append(component)

    def _take_decided(self) -> Iterator[tuple[BlockIndex, list[Component]]]:
        waiting = {self._owner(group) for group in self._open.values()}
        decided = [block for block in self._undecided if block not in waiting]
        self._undecided = [block for block in self._undecided if block in waiting]
        for block in decided:
            yield block, sorted(self._closed.pop(block, []))

    def _owner(self, group: _Group) -> BlockIndex:
        """Return the block that a component begins in."""
        y, x = group.first
        return y // self._grid.side, x // self._grid.side


def join_faces(
    grid: BlockGrid, faces: Mapping[BlockIndex, Faces]
) -> dict[BlockIndex, list[Component]]:
    """Join the components of blocks; return them by the block of their first pixel, in order.

    Args:
        grid: the blocks.
        faces: what touches the faces of each block; blocks that are left out are background.
    """
    joiner = FaceJoiner(grid, faces)
    return {
        index: owned
        for block in sorted(faces)
        for index, owned in joiner.add(block, faces[block])
        if owned
    }
