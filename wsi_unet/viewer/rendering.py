"""Making tiles: which there are, and what each shows. Nothing here knows of HTTP."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from wsi_unet.viewer.painting import (
    MARGIN,
    Style,
    clear_outside,
    paint_classes,
    paint_looks,
    paint_probabilities,
)
from wsi_unet.viewer.pictures import render_picture
from wsi_unet.viewer.runs import ViewedRun
from wsi_unet.viewer.tile_files import encode_blank, encode_jpeg, encode_png
from wsi_unet.viewer.tile_grid import TilePlace
from wsi_unet.viewer.viewed import ViewedSlide


class TileOrder(Protocol):
    """A tile that the page asks for: hashable, so that equal ones are made once."""

    @property
    def is_jpeg(self) -> bool:
        """Whether it is a JPEG file, rather than a PNG."""
        ...

    def version(self, viewed: ViewedSlide) -> Hashable:
        """Return what changes when the tile does."""
        ...

    def render(self, viewed: ViewedSlide, place: TilePlace) -> bytes:
        """Return the tile as a file.

        Raises:
            WsiUnetError: something can't be read.
        """
        ...


@dataclass(frozen=True)
class PictureOrder:
    """A tile of the slide."""

    is_jpeg: bool = True

    def version(self, viewed: ViewedSlide) -> Hashable:
        """Return that a slide doesn't change."""
        return 0

    def render(self, viewed: ViewedSlide, place: TilePlace) -> bytes:
        """Return the slide's pixels; grey paper where they can't be shown at this zoom."""
        pixels = render_picture(viewed.source.levels, place)
        return encode_blank() if pixels is None else encode_jpeg(pixels)


@dataclass(frozen=True)
class ClassesOrder:
    """A tile of the classes of a label group.

    Attributes:
        group: number of the group.
        shown: the label values that are drawn.
        style: how.
    """

    group: int
    shown: frozenset[int]
    style: Style
    is_jpeg: bool = False

    def version(self, viewed: ViewedSlide) -> Hashable:
        """Return the version of the run that made the labels."""
        return viewed.run_of(viewed.groups[self.group]).version

    def render(self, viewed: ViewedSlide, place: TilePlace) -> bytes:
        """Return the classes in their colours."""
        group = viewed.groups[self.group]
        values = group.labels.read_tile(place, viewed.run_of(group).states, MARGIN)
        painted = paint_classes(values, group.colours, self.shown, self.style)
        return encode_png(clear_outside(painted, place))


@dataclass(frozen=True)
class LooksOrder:
    """A tile of where a run's model looked.

    Attributes:
        run: number of the run.
    """

    run: int
    is_jpeg: bool = False

    def version(self, viewed: ViewedSlide) -> Hashable:
        """Return the version of the run."""
        return viewed.runs[self.run].version

    def render(self, viewed: ViewedSlide, place: TilePlace) -> bytes:
        """Return the hatching."""
        run = viewed.runs[self.run]
        looks = run.states.read_tile(place, run.groups[0].labels.downsample, MARGIN)
        return encode_png(paint_looks(looks))


@dataclass(frozen=True)
class HeatOrder:
    """A tile of the probabilities of a class.

    Attributes:
        group: number of the probabilities.
        channel: number of the class among them.
        threshold: smaller probabilities aren't shown, 0 to 255 for 0 to 1.
    """

    group: int
    channel: int
    threshold: int
    is_jpeg: bool = False

    def version(self, viewed: ViewedSlide) -> Hashable:
        """Return the version of the run that made them."""
        return self._find_run(viewed).version

    def render(self, viewed: ViewedSlide, place: TilePlace) -> bytes:
        """Return the heat map."""
        run = self._find_run(viewed)
        _, planes = viewed.probabilities[self.group].channels[self.channel]
        values = planes.read_tile(place, run.states)
        looks = run.states.read_tile(place, planes.downsample)
        return encode_png(clear_outside(paint_probabilities(values, looks, self.threshold), place))

    def _find_run(self, viewed: ViewedSlide) -> ViewedRun:
        name = viewed.probabilities[self.group].run
        return next(run for run in viewed.runs if run.name == name)
