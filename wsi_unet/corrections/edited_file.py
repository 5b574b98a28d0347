"""Files with objects that people have corrected, read as pixels of the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.annotation import Annotation, Annotations
from wsi_unet.annotations.drawing import check_drawable
from wsi_unet.annotations.polygons import bounds
from wsi_unet.annotations.reading import LARGEST_FILE, parse_annotations
from wsi_unet.corrections.rasters import collect_edges, find_runs, join_runs
from wsi_unet.errors import AnnotationError, os_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.objects.provenance import CREATOR
from wsi_unet.objects.runs import Runs
from wsi_unet.objects.scan_origin import Origin
from wsi_unet.regular_files import read_regular
from wsi_unet.wording import count


@dataclass(frozen=True)
class LabelFrame:
    """The grid of labels on the slide.

    Attributes:
        shape: (rows, columns), px.
        downsample: (y, x) slide px per px.
    """

    shape: Shape
    downsample: tuple[float, float]


@dataclass(frozen=True, eq=False)
class EditedFeatures:
    """The n outlines of one file, or of several.

    Attributes:
        identities: (n,) their ids, lower case; "" for none.
        classes: (n,) names of their classes.
        places: (n, 2) where each is, for messages: the middle of its bounding box, (y, x) px of the
            slide.
        runs: their pixels; outlines between the centres of pixels have none.
        empty: number of outlines that enclose nothing and were left out.
        slides: fingerprints of the slides that the files say they are of.
        origin: from where the coordinates of the (first) file counted.
    """

    identities: tuple[str, ...]
    classes: tuple[str, ...]
    places: NDArray[np.float64]
    runs: Runs
    empty: int
    slides: frozenset[str]
    origin: Origin = (0, 0)

    def __len__(self) -> int:
        return len(self.identities)

    @classmethod
    def concatenate(cls, several: Sequence[EditedFeatures]) -> EditedFeatures:
        """Return the outlines of several files, at least one."""
        return cls(
            tuple(text for each in several for text in each.identities),
            tuple(name for each in several for name in each.classes),
            np.concatenate([each.places for each in several]),
            join_runs([each.runs for each in several], [len(each) for each in several]),
            sum(each.empty for each in several),
            frozenset[str]().union(*(each.slides for each in several)),
            several[0].origin,
        )

    def locate(self, feature: int) -> str:
        """Return where an outline is, for messages.

        >>> nothing = np.zeros(0, np.int64)
        >>> runs = Runs((1, 1), nothing, nothing, nothing, nothing)
        >>> EditedFeatures(("",), ("a",), np.array([[7.2, 9]]), runs, 0, frozenset()).locate(0)
        'the outline around x 9, y 7'
        """
        y, x = self.places[feature]
        return f"the outline around x {x:.0f}, y {y:.0f}"


@dataclass(frozen=True, eq=False)
class EditedFile:
    """A file that was given.

    Attributes:
        path: the file.
        sha256: checksum of its bytes.
        data: its bytes.
    """

    path: Path
    sha256: str
    data: bytes

    @classmethod
    def read(cls, path: Path) -> EditedFile:
        """Read a file; it isn't parsed yet.

        Raises:
            AnnotationError: it can't be read.
        """
        with os_errors_as(AnnotationError, path):
            data = read_regular(path, LARGEST_FILE)
        return cls(path, hashlib.sha256(data).hexdigest(), data)

    def parse(
        self, frame: LabelFrame, origin: Origin | None, find_origin: Callable[[], Origin]
    ) -> EditedFeatures:
        """Return its outlines on the grid of labels; each may reach beyond the slide.

        Args:
            frame: the grid.
            origin: from where its coordinates count; None: as it says.
            find_origin: returns from where they count if it says nothing.

        Raises:
            AnnotationError: it isn't a valid file, holds no polygon, or one that lies outside of
                the slide; or they are too intricate to be drawn.
        """
        found = parse_annotations(self.path, self.data)
        counted_from = origin or _read_own_origin(found.members) or find_origin()
        start = np.array(counted_from, np.float64)
        limits = _find_limits(found) + np.tile(start, 2)
        self._refuse_outside(found, limits, frame)
        factors = np.array(frame.downsample)
        edges, owner = collect_edges(
            [
                [tuple((ring + start) / factors for ring in polygon) for polygon in each.polygons]
                for each in found.annotations
            ]
        )
        check_drawable(self.path, edges, Box.from_shape(frame.shape))
        return EditedFeatures(
            tuple(each.identity.strip().lower() for each in found.annotations),
            tuple(each.name for each in found.annotations),
            (limits[:, :2] + limits[:, 2:]) / 2,
            find_runs(edges, owner, frame.shape),
            found.empty,
            frozenset(_find_slides(found.members)),
            counted_from,
        )

    def _refuse_outside(
        self, found: Annotations, limits: NDArray[np.float64], frame: LabelFrame
    ) -> None:
        height, width = np.array(frame.shape) * frame.downsample
        y0, x0, y1, x1 = limits.T
        outside = np.flatnonzero((y1 <= 0) | (x1 <= 0) | (y0 >= height) | (x0 >= width))
        if len(outside):
            first = int(outside[0])
            raise AnnotationError(
                f"{self.path}: {count(len(outside), 'outline')} of {len(limits)} outside of the "
                f"slide, first {found.annotations[first].name!r} at x {x0[first]:.0f} to "
                f"{x1[first]:.0f}, y {y0[first]:.0f} to {y1[first]:.0f}; coordinates must be "
                "full-resolution pixels of the same slide"
            )


def _find_limits(found: Annotations) -> NDArray[np.float64]:
    """Return the bounding boxes (n, 4) of annotations, (y0, x0, y1, x1), px of the slide."""
    return np.array([_surround(each) for each in found.annotations], np.float64).reshape(-1, 4)


def _surround(annotation: Annotation) -> tuple[float, float, float, float]:
    return bounds([ring for polygon in annotation.polygons for ring in polygon])


def _find_provenance(members: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a document of ours says about itself."""
    for member in members.values():
        if isinstance(member, Mapping) and member.get("creator") == CREATOR:
            yield member


def _find_slides(members: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fingerprints of slides that a document of ours says it is of.

    >>> [*_find_slides({"a": {"creator": "wsi-unet", "groups": [{"fingerprint": "f"}]}, "b": 7})]
    ['f']
    """
    for provenance in _find_provenance(members):
        groups = provenance.get("groups")
        for group in groups if isinstance(groups, list) else []:
            if isinstance(group, Mapping) and isinstance(group.get("fingerprint"), str):
                yield group["fingerprint"]


def _read_own_origin(members: Mapping[str, Any]) -> Origin | None:
    """Return from where a document of ours says that it counts; None if it doesn't say.

    >>> _read_own_origin({"a": {"creator": "wsi-unet", "origin": [3, 2]}})
    (2, 3)
    """
    for provenance in _find_provenance(members):
        match provenance.get("origin"):
            case [int(x), int(y)]:
                return y, x
    return None
