"""One slide that the page shows: its pixels, and what a result says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from wsi_unet.errors import SlideError, WsiUnetError
from wsi_unet.geometry import BlockIndex, Shape
from wsi_unet.labels.contents import open_output, read_label_names
from wsi_unet.labels.documents import read_group_attributes
from wsi_unet.labels.progress import Progress
from wsi_unet.locations import Location
from wsi_unet.slides.levels import check_mpp
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.slide import Slide
from wsi_unet.storage.store import ByteStore
from wsi_unet.viewer.groups import (
    SlideFacts,
    ViewedGroup,
    ViewedProbabilities,
    list_groups,
    open_probabilities,
)
from wsi_unet.viewer.object_tables import ObjectTables, open_objects_of
from wsi_unet.viewer.runs import ViewedRun, open_runs
from wsi_unet.viewer.slide_images import (
    SlideSource,
    find_slide,
    list_levels,
    list_stored_levels,
    open_given,
)
from wsi_unet.viewer.tile_grid import TileGrid

Micrometres = tuple[float, float]


@dataclass(eq=False)
class ViewedSlide:
    """A slide, and the result about it if there is one. Threads may read it at once.

    Attributes:
        name: what the page calls it.
        shape: (rows, columns) of the slide, px.
        mpp: (y, x) size of its pixels, µm; None if it isn't known.
        source: its pixels.
        store: the result; None of a slide without one.
        groups: the label groups.
        runs: the runs that made them.
        probabilities: what runs stored of them.
        objects: the objects of each label group; None where there are none that are current.
        revision: what changes whenever the result has to be opened anew.
        problems: what couldn't be read, in order, each once.
    """

    name: str
    shape: Shape
    mpp: Micrometres | None
    source: SlideSource
    store: ByteStore | None = None
    groups: Sequence[ViewedGroup] = ()
    runs: Sequence[ViewedRun] = ()
    probabilities: Sequence[ViewedProbabilities] = ()
    objects: Sequence[ObjectTables | None] = ()
    revision: str = ""
    problems: dict[str, None] = field(default_factory=dict)

    @classmethod
    def open_slide(cls, path: str, series: str | None = None) -> Self:
        """Open a slide without a result.

        Args:
            path: path or URL.
            series: number or name of one of several images in its file; None for the largest.

        Raises:
            SlideError: it can't be opened.
        """
        slide = open_slide(path, series=series)
        mpp = _find_mpp(slide)
        source = SlideSource(slide, tuple(list_levels(slide)))
        return cls(slide.name, slide.shape, mpp, source)

    @classmethod
    def open_result(cls, path: str | Location, slide: str | None = None) -> Self:
        """Open a result, finished or not, and the slide it is about.

        Args:
            path: the result.
            slide: the slide; None looks where the run found it, and beside the result.

        Raises:
            OutputError: there is no result, or it is damaged.
            SlideError: the given slide can't be opened.
            OptionError: it is another slide.
        """
        store = open_output(path)
        revision, groups = read_revision(store), list_groups(store)
        runs = open_runs(store, groups)
        facts = _find_facts(store, groups)
        source = _open_source(store, facts, runs, slide)
        shape = source.slide.shape if source.slide is not None else _find_shape(facts, groups)
        opened = cls(
            name=store.location.name,
            shape=shape,
            mpp=facts.mpp,
            source=source,
            store=store,
            groups=groups,
            runs=runs,
            probabilities=_list_probabilities(store, runs),
            revision=revision,
        )
        opened.objects = [
            open_objects_of(store, g.name, g.finished, g.labels.downsample) for g in groups
        ]
        return opened

    @property
    def grid(self) -> TileGrid:
        """The tiles of the slide."""
        return TileGrid(self.shape)

    def run_of(self, group: ViewedGroup) -> ViewedRun:
        """Return the run that made a label group."""
        return next(run for run in self.runs if run.name == group.run)

    @property
    def live(self) -> bool:
        """Whether a run may still be computing."""
        return any(run.live for run in self.runs)

    def look(self) -> dict[int, list[BlockIndex]]:
        """Look for new blocks of runs; return those that changed by the number of their run.

        Raises:
            OutputError: the store can't be read.
        """
        changed = {number: run.look() for number, run in enumerate(self.runs) if run.live}
        return {number: blocks for number, blocks in changed.items() if blocks}

    def note_problem(self, error: WsiUnetError) -> None:
        """Remember what couldn't be read, to show it on the page; the first ones only."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems[str(error)] = None

    def close(self) -> None:
        """Close the slide."""
        self.source.close()


MOST_PROBLEMS = 20
"""Problems that the page shows."""


def _find_mpp(slide: Slide) -> Micrometres | None:
    """Return the size (y, x) of a slide's pixels, µm; None if none that can be right is stated."""
    if slide.mpp is None:
        return None
    try:
        check_mpp(slide.mpp)
    except SlideError:
        return None
    return slide.mpp.y, slide.mpp.x


def read_revision(store: ByteStore) -> str:
    """Return a text that changes when groups, runs or objects of a result come, go or finish.

    Raises:
        OutputError: the result can't be read.
    """
    found: list[Hashable] = []
    for name in read_label_names(store):
        attributes = read_group_attributes(store, f"labels/{name}", "labels") or {}
        ours = attributes.get("wsi_unet", {})
        run = str(ours.get("run", name))
        record = Progress(store, run).read_run()
        begun = None if record is None else record.model_dump_json()
        stage = store.get(f".wsi_unet/{run}/objects/{name}/stage.json", 1 << 20)
        found.append((name, ours.get("finished"), begun, stage))
    image = "multiscales" in (read_group_attributes(store, "") or {}).get("ome", {})
    tail = store.size(".wsi_unet/image/tail.json")
    return hashlib.sha256(repr((found, image, tail)).encode()).hexdigest()


def _find_facts(store: ByteStore, groups: Sequence[ViewedGroup]) -> SlideFacts:
    if groups:
        return groups[0].slide
    ours = (read_group_attributes(store, "") or {}).get("wsi_unet", {})
    return SlideFacts.model_validate_json(json.dumps(ours.get("slide", {})))


def _find_shape(facts: SlideFacts, groups: Sequence[ViewedGroup]) -> Shape:
    """Return the (rows, columns) of a slide that isn't at hand, px."""
    if facts.shape is not None:
        return facts.shape
    if not groups:
        return 1, 1
    return groups[0].covered


def _open_source(
    store: ByteStore, facts: SlideFacts, runs: Sequence[ViewedRun], given: str | None
) -> SlideSource:
    stored = list_stored_levels(store, facts)
    if given is not None:
        slide = open_given(given, facts, runs[0] if runs else None)
        return SlideSource(slide, (*list_levels(slide), *stored))
    found = find_slide(store, facts, runs)
    if found is not None:
        return SlideSource(found, (*list_levels(found), *stored))
    what = facts.name or "the slide"
    instead = "the image that the result stores is shown" if stored else "no image is shown"
    note = f"{what} isn't where it was segmented, nor beside the result, so {instead}"
    return SlideSource(None, tuple(stored), f"{note}; give it as `slide`")


def _list_probabilities(
    store: ByteStore, runs: Sequence[ViewedRun]
) -> tuple[ViewedProbabilities, ...]:
    opened = (open_probabilities(store, run.name) for run in runs)
    return tuple(found for found in opened if found is not None)


def describe(viewed: ViewedSlide) -> dict[str, Any]:
    """Return what the page needs to know, as JSON-able values."""
    runs = {run.name: number for number, run in enumerate(viewed.runs)}
    grid = viewed.grid
    return {
        "name": viewed.name,
        "slide": None if viewed.source.slide is None else viewed.source.slide.name,
        "note": viewed.source.note,
        "picture": bool(viewed.source.levels),
        "shape": list(viewed.shape),
        "padded": list(grid.padded),
        "zooms": grid.zooms,
        "mpp": None if viewed.mpp is None else list(viewed.mpp),
        "revision": viewed.revision,
        "live": viewed.live,
        "groups": [
            _describe_group(group, runs[group.run], objects)
            for group, objects in zip(viewed.groups, viewed.objects, strict=True)
        ],
        "runs": [describe_run(run) for run in viewed.runs],
        "probabilities": [
            {"run": runs[each.run], "classes": [name for name, _ in each.channels]}
            for each in viewed.probabilities
        ],
        "problems": [*viewed.problems],
    }


def _describe_group(group: ViewedGroup, run: int, objects: ObjectTables | None) -> dict[str, Any]:
    return {
        "name": group.name,
        "run": run,
        "model": group.model,
        "finished": group.finished,
        "downsample": list(group.labels.downsample),
        "classes": [
            {
                "value": value,
                "name": name,
                "colour": "#" + bytes(group.colours.get(value, (128, 128, 128))).hex(),
                "pixels": group.pixels.get(value),
                "mm2": group.frame.area_mm2(group.pixels[value]) if value in group.pixels else None,
            }
            for value, name in group.classes.items()
        ],
        "objects": None if objects is None else objects.describe(),
    }


def describe_run(run: ViewedRun) -> dict[str, Any]:
    """Return how far a run is, and where it failed, as JSON-able values."""
    states, (y, x) = run.states, run.groups[0].labels.downsample
    failures = [
        {
            "box": [core.x0 * x, core.y0 * y, core.x1 * x, core.y1 * y],
            "error": error,
        }
        for index, error in list(states.failures.items())[:MOST_FAILURES]
        if 0 <= index[0] < states.grid.size[0] and 0 <= index[1] < states.grid.size[1]
        for core in (states.grid.core(index),)
    ]
    return {
        "name": run.name,
        "version": run.version,
        "live": run.live,
        "known": run.known,
        "everywhere": states.looked_everywhere,
        "progress": asdict(run.measure_progress()),
        "failures": failures,
    }


MOST_FAILURES = 500
"""Failed blocks whose errors the page gets."""
