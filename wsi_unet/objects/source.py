"""What objects are found in: finished labels, their frame on the slide, and what made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.contents import parse_frame, parse_run_name
from wsi_unet.labels.documents import (
    DamagedError,
    read_array_shape,
    read_group_attributes,
)
from wsi_unet.labels.predicted import StoredArea
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.pyramid import shard_key
from wsi_unet.labels.writer import read_shards
from wsi_unet.objects.intensities.probabilities import (
    StoredProbabilities,
    find_probabilities,
)
from wsi_unet.objects.intensities.slide_pixels import SlideGrid
from wsi_unet.objects.provenance import Provenance, parse_documents
from wsi_unet.objects.regions import find_values
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.storage.store import ByteStore


@dataclass(frozen=True, eq=False)
class LabelSource:
    """The finished labels of one group.

    Attributes:
        store: the output.
        run: name of the run that made them.
        signature: hash of everything that decided their pixels.
        label: name of the group.
        grid: their blocks.
        area: what was predicted.
        shards: checksum of each block's labels, by block; blocks that are all background, or that
            weren't computed, are left out.
        classes: names of the classes by label value, background left out.
        pixel_size: (y, x) size of a pixel, µm, or slide px if `micrometres` is false.
        micrometres: whether the slide's pixel size is known.
        downsample: (y, x) slide px per pixel.
        predicted_pixels: number of pixels that were predicted.
        provenance: what made them.
        finished: when they were finished.
        slide: the slide, and where their pixels are on it.
        probabilities: what is stored beside them; None: nothing.
    """

    store: ByteStore
    run: str
    signature: str
    label: str
    grid: BlockGrid
    area: PredictedArea
    shards: Mapping[BlockIndex, str]
    classes: Mapping[int, str]
    pixel_size: tuple[float, float]
    micrometres: bool
    downsample: tuple[float, float]
    predicted_pixels: int
    provenance: Provenance
    finished: str
    slide: SlideGrid
    probabilities: StoredProbabilities | None

    @classmethod
    def open_all(cls, store: ByteStore, labels: Sequence[str]) -> list[LabelSource]:
        """Open the labels of groups; what groups of one run share is read once.

        Raises:
            OutputError: they aren't finished, or what is known of them is missing or damaged.
        """
        attributes = {label: read_finished_attributes(store, label) for label in labels}
        by_run: dict[str, list[str]] = {}
        for label in labels:
            by_run.setdefault(parse_run_name(attributes[label]["wsi_unet"], label), []).append(
                label
            )
        opened: dict[str, LabelSource] = {}
        for run, members in by_run.items():
            opened |= cls._open_run(store, run, {label: attributes[label] for label in members})
        return [opened[label] for label in labels]

    @classmethod
    def _open_run(
        cls, store: ByteStore, run: str, attributes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, LabelSource]:
        """Open groups of one run, by name."""
        progress = Progress(store, run)
        record = progress.read_run()
        if record is None:
            raise OutputError(
                f"{store}: the progress of {run!r} isn't kept beside the labels, so nothing says "
                "where the model looked; copy the folder .wsi_unet too, or segment again"
            )
        grids = {label: _read_grid(store, label) for label in attributes}
        documents = {
            label: parse_documents(store, label, each, record) for label, each in attributes.items()
        }
        areas = {
            grid: StoredArea.open(progress, record, grid, finished=True).read()
            for grid in set(grids.values())
        }
        groups = {f"labels/{label}": (grid, False) for label, grid in grids.items()}
        beside = find_probabilities(store, run)
        if beside is not None:
            groups[beside.key] = next(iter(grids.values())), True
        said = _read_markers(progress, record, groups)
        opened = {}
        for label, each in attributes.items():
            (provenance, parameters), frame = documents[label], parse_frame(each)
            properties = each["ome"]["image-label"]["properties"]
            markers, counted = said[f"labels/{label}"], sum(i.get("pixels", 0) for i in properties)
            if not markers.are_complete(grids[label], counted):
                raise OutputError(
                    f"{store}: the progress of {run!r} doesn't tell of all blocks of {label!r}, so "
                    "some would count as background; run the same segmentation again, which "
                    "computes what is missing"
                )
            classes = {i["label-value"]: i["class"] for i in properties if i["label-value"]}
            probabilities = None
            if beside is not None:
                probabilities = StoredProbabilities.open(
                    store, beside, grids[label], classes, said[beside.key].shards
                )
            opened[label] = cls(
                store=store,
                run=run,
                signature=record.signature,
                label=label,
                grid=grids[label],
                area=areas[grids[label]],
                shards=markers.shards,
                classes=classes,
                pixel_size=frame.scale,
                micrometres=frame.unit is not None,
                downsample=parameters.sampling.downsample,
                predicted_pixels=counted,
                provenance=provenance,
                finished=each["wsi_unet"]["finished"],
                slide=SlideGrid(parameters.slide, parameters.sampling, grids[label].shape),
                probabilities=probabilities,
            )
        return opened

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Return the labels (h, w) of a box inside the array.

        Raises:
            OutputError: a shard is damaged, missing or another one than was written.
        """
        labels = read_shards(
            self.store, f"labels/{self.label}", 0, self.grid, box, checksums=self.shards
        )
        if unknown := {*find_values(labels)} - {*self.classes}:
            raise OutputError(
                f"{self.store}: the labels {self.label!r} hold the value {min(unknown)}, which is "
                "none of their classes; segment again with `overwrite=True`"
            )
        return labels

    def predicted(self, box: Box) -> NDArray[np.bool_]:
        """Return which pixels (h, w) of a box were predicted; none beyond the array's edge."""
        found = np.zeros(box.shape, np.bool_)
        inside = box.intersection(Box.from_shape(self.grid.shape))
        values = True if self.area.whole else self.area.read(inside)
        found[inside.relative_to(box).slices()] = values
        return found

    def identify_block(self, block: BlockIndex) -> str:
        """Return what identifies the stored pixels of a block: their checksums."""
        labels = self.shards[block]
        if self.probabilities is None:
            return labels
        return f"{labels} {self.probabilities.shards.get(block, '')}"

    @property
    def area_mm2(self) -> float | None:
        """Area that was predicted; None where the slide's pixel size isn't known."""
        if not self.micrometres:
            return None
        return self.predicted_pixels * self.pixel_size[0] * self.pixel_size[1] / 1e6

    def describe(self) -> dict[str, Any]:
        """Return what identifies labels and frame, as JSON-able values."""
        return {
            "slide": self.provenance.slide.name,
            "fingerprint": self.provenance.slide.fingerprint,
            "model": self.provenance.model.name,
            "model_sha256": self.provenance.model.sha256,
            "exactness": self.provenance.exactness,
            "label": self.label,
            "shape": list(self.grid.shape),
            "pixel_size": list(self.pixel_size),
            "unit": "micrometer" if self.micrometres else "pixel",
            "downsample": list(self.downsample),
            "classes": {str(value): name for value, name in self.classes.items()},
        }

    def hash_predicted(self) -> str:
        """Return a hash of what was predicted, which decides what is cut."""
        digest = hashlib.sha256(json.dumps([repr(box) for box in self.area.boxes]).encode())
        if self.area.mask is not None:
            digest.update(np.packbits(self.area.mask).tobytes())
        return digest.hexdigest()


def read_finished_attributes(store: ByteStore, label: str) -> dict[str, Any]:
    """Return the attributes of a group of finished labels.

    Raises:
        OutputError: they aren't finished, or the group is missing or damaged.
    """
    attributes = read_group_attributes(store, f"labels/{label}", "labels")
    if attributes is None:
        raise DamagedError(f"{store}: 'labels/{label}' is listed but missing; compute it again")
    if attributes["wsi_unet"]["finished"] is None:
        raise OutputError(
            f"{store}: the labels {label!r} aren't finished, so objects would be missing; run "
            "the same segmentation again, which computes what is left"
        )
    return attributes


def _read_grid(store: ByteStore, label: str) -> BlockGrid:
    shape, block = read_array_shape(store, f"labels/{label}/0")
    return BlockGrid((shape[-2], shape[-1]), block)


@dataclass
class _Markers:
    """What the markers of a group's blocks say of level 0.

    Attributes:
        shards: checksums of the shards that are stored, by block.
        blocks: number of markers.
        predicted: number of pixels that were predicted.
    """

    shards: dict[BlockIndex, str] = field(default_factory=dict)
    blocks: int = 0
    predicted: int = 0

    def are_complete(self, grid: BlockGrid, counted: int) -> bool:
        """Return whether they tell of all pixels that were counted when the labels were finished.

        Early versions counted all pixels, predicted or not; there every block has a marker.
        """
        whole = counted == grid.shape[0] * grid.shape[1] and self.blocks == len(grid)
        return whole or self.predicted == counted


def _read_markers(
    progress: Progress, record: RunRecord, groups: Mapping[str, tuple[BlockGrid, bool]]
) -> dict[str, _Markers]:
    """Return what the markers of blocks say of level 0, by group.

    Args:
        progress: the progress of the run.
        record: its record.
        groups: the blocks of each group, and whether it has channels.
    """
    found = {group: _Markers() for group in groups}
    for marker in progress.read_markers(record.signature):
        row, column = marker.block
        for group, (grid, channels) in groups.items():
            if row >= grid.size[0] or column >= grid.size[1]:
                continue
            said = found[group]
            said.blocks += 1
            said.predicted += marker.predicted
            shard = marker.shards.get(shard_key(group, 0, marker.block, channels))
            if shard is not None and shard.sha256 is not None:
                said.shards[marker.block] = shard.sha256
    return found
