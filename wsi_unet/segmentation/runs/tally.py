"""Running totals over the blocks of one array."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsi_unet.geometry import BlockGrid, BlockIndex
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.report import BlockCounts, Failure, Waits


@dataclass
class Tally:
    """The blocks of one array, counted by what became of them.

    Attributes:
        grid: the grid of blocks.
        tissue: blocks with tissue; the others take hardly any time.
        total: blocks of the run.
        resumed: blocks done before this run.
        done: blocks done by this run.
        empty: blocks among both that are all background, of which nothing is stored.
        tissue_resumed: blocks with tissue among `resumed`.
        tissue_done: blocks with tissue among `done`.
        pixels: level-0 pixels of `done`, those inside the regions.
        waits: what the threads spent their time on in `done`.
        failures: blocks that failed.
    """

    grid: BlockGrid
    tissue: frozenset[BlockIndex]
    total: int
    resumed: int = 0
    done: int = 0
    empty: int = 0
    tissue_resumed: int = 0
    tissue_done: int = 0
    pixels: int = 0
    waits: Waits = field(default_factory=Waits)
    failures: list[Failure] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return self.resumed + self.done == self.total

    def count_resumed(self, marker: BlockMarker) -> None:
        """Count a block that was done before."""
        self.resumed += 1
        self.empty += marker.empty
        self.tissue_resumed += marker.block in self.tissue

    def count_done(self, marker: BlockMarker) -> None:
        """Count a block that this run has done."""
        self.done += 1
        self.empty += marker.empty
        self.tissue_done += marker.block in self.tissue
        self.pixels += sum(box.area for box in marker.covered(self.grid))
        self.waits += Waits.from_marker(marker)

    def count_blocks(self) -> BlockCounts:
        """Return the numbers of blocks, for a report."""
        return BlockCounts(
            total=self.total,
            done=self.resumed + self.done,
            resumed=self.resumed,
            failed=len(self.failures),
            empty=self.empty,
        )

    def estimate_seconds_left(self, seconds: float) -> float | None:
        """Estimate the time left, from the blocks with tissue alone; None while none is done.

        Args:
            seconds: how long the run has taken so far.
        """
        if not self.tissue_done:
            return None
        left = len(self.tissue) - self.tissue_done - self.tissue_resumed
        return seconds / self.tissue_done * left
