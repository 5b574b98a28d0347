"""The resolved parameters of a run: stored with the run, read by every worker."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from typing_extensions import override

from wsi_unet.geometry import BlockGrid, BlockIndex, Box, Shape, find_pixels, merge_boxes
from wsi_unet.labels.contents import FORMAT_VERSION
from wsi_unet.labels.documents import (
    MOST_CLASSES,
    DamagedError,
    LabelName,
    explain_invalid,
)
from wsi_unet.labels.progress import BlockMarker, MarkedBoxes, Progress, RunRecord
from wsi_unet.labels.pyramid import (
    LONGEST_BLOCK,
    LONGEST_SIDE,
    MOST_BLOCKS,
    MOST_LEVELS,
    Pyramid,
    is_block_side,
)
from wsi_unet.labels.run_layout import RunLayout
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.number_types import Precision
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.segmentation.references import MOST_MEMBERS, ModelReference, SlideReference
from wsi_unet.slides.resample import Resampling
from wsi_unet.slides.tissue.appearance import Appearance
from wsi_unet.slides.tissue.mask import TissueMask

MOST_REGIONS = 256
"""The most regions of a run: every block is compared with each."""

Levels = Annotated[int, Field(ge=1, le=MOST_LEVELS)]
Edge = Annotated[int, Field(ge=0, le=LONGEST_SIDE)]

StoredRegion = tuple[Edge, Edge, Edge, Edge]
StoredOutput = Annotated[str, Field(pattern="^(labels|probabilities)$")]


def _check_resampling(resampling: Resampling) -> Resampling:
    factors = (*resampling.ratio, *resampling.downsample)
    if not (
        0 <= resampling.level < MOST_LEVELS
        and all(1 <= side <= LONGEST_SIDE for side in resampling.shape)
        and all(0 < factor < LONGEST_SIDE for factor in factors)
    ):
        raise ValueError("a level, a shape or factors that no slide has")
    return resampling


def _check_statistics(statistics: IntensityStatistics) -> IntensityStatistics:
    numbers = (*statistics.mean, *statistics.std)
    if not (
        len(statistics.mean) == len(statistics.std)
        and all(map(math.isfinite, numbers))
        and min(statistics.std, default=0) > 0
    ):
        raise ValueError("not one finite mean and one deviation above 0 per channel")
    return statistics


def _check_block(side: int) -> int:
    if side > LONGEST_BLOCK or not is_block_side(side):
        raise ValueError("not the side of a block")
    return side


StoredStatistics = Annotated[IntensityStatistics, AfterValidator(_check_statistics)]
Block = Annotated[int, AfterValidator(_check_block)]
StoredResampling = Annotated[
    Resampling,
    AfterValidator(_check_resampling),
    Field(validation_alias=AliasChoices("sampling", "resampling"), serialization_alias="sampling"),
]
"""A resampling, which is called `sampling` in run.json."""


class _Parameters(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", serialize_by_alias=True, allow_inf_nan=False
    )

    slide: SlideReference

    @property
    def grid(self) -> BlockGrid:
        """The blocks of the array."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _check_blocks(self) -> Self:
        if len(self.grid) > MOST_BLOCKS:
            raise ValueError(f"{len(self.grid)} blocks, more than {MOST_BLOCKS}")
        return self

    def _pixels(self) -> dict[str, Any]:
        """Return everything besides the slide that decides the stored pixels, by name."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the stored pixels, by name, as JSON would read it."""
        identity = {
            "store format": FORMAT_VERSION,
            "slide": self.slide.fingerprint,
            "reader": self.slide.reader,
            **self._pixels(),
        }
        if self.slide.series is not None:  # runs keep the signatures they had before it existed
            identity["series"] = self.slide.series
        normalised: dict[str, Any] = json.loads(json.dumps(identity))
        return normalised

    def signature(self) -> str:
        """Return the signature: the sha256 of the identity."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def marked_boxes(self, index: BlockIndex) -> MarkedBoxes:
        """Return what of a block its marker must say was computed; None for all of it."""
        return None

    def covers_block(self, marker: BlockMarker) -> bool:
        """Return whether a marker with this signature says that all of its block's part is done."""
        return self.marked_boxes(marker.block) == marker.boxes


class LabelParameters(_Parameters):
    """The parameters of a run that computes labels.

    Attributes:
        slide: the slide.
        model: the model or the ensemble.
        label: name of the run, and of its label group if there is only one.
        groups: names of the label groups of a multi-label model, one per class.
        resampling: how the model's pixel grid is read from the slide.
        levels: number of pyramid levels.
        block: side of a block, px of the model's grid.
        tile: side of a tile's core, px of the model's grid.
        precision: "float32", "bfloat16" or "float16".
        device: kind of device, "cpu" or "cuda", or one device "cuda:<index>".
        tissue: "none", or "auto:" or "mask:" and the sha256 of the mask.
        outputs: "labels", and "probabilities" if they are stored too.
        tta: which views of a window are averaged.
        statistics: how each model's intensities are normalised, if any model wants the slide's own
            statistics.
        appearance: what the slide's tissue looks like, if a model's card says what it was trained
            on; None: there is next to no tissue, or no card says it.
        regions: computed regions as level-0 boxes (y0, x0, y1, x1); empty for the whole slide. They
            decide which pixels are computed and not their values, so they aren't in the signature:
            each block's marker says what of the block was computed.
        exactness: "approximate" if tiling can change a label, or else "exact".
        inexact_because: why tiling can change a label; "" if it can't.
        agreement: share of labels equal to float32's on real windows; None in float32.
        processes_per_core: worker processes that share a core.
        label_values: number of label values of each group, 0 included; None in runs of earlier
            versions.
        classes: number of the models' classes, which probabilities have as channels; None in runs
            of earlier versions.
    """

    model: ModelReference
    label: LabelName
    groups: Annotated[tuple[LabelName, ...], Field(max_length=MOST_CLASSES)] = ()
    resampling: StoredResampling
    levels: Levels
    block: Block
    tile: Annotated[int, Field(ge=1, le=LONGEST_BLOCK)]
    precision: Precision
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,4})?)$")]
    tissue: Annotated[str, Field(pattern=r"^(none|(auto|mask):[0-9a-f]{64})$")]
    outputs: Annotated[tuple[StoredOutput, ...], Field(max_length=2)]
    tta: Tta = "none"
    statistics: Annotated[tuple[StoredStatistics, ...], Field(max_length=MOST_MEMBERS)] = ()
    appearance: Appearance | None = None
    regions: Annotated[tuple[StoredRegion, ...], Field(max_length=MOST_REGIONS)] = ()
    exactness: Literal["exact", "approximate"] = "exact"
    inexact_because: str = ""
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    processes_per_core: Annotated[int, Field(ge=1)] = 1
    label_values: Annotated[int, Field(ge=1, le=MOST_CLASSES)] | None = None
    classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] | None = None

    def _pixels(self) -> dict[str, Any]:
        """Return everything that decides the labels; for float32, without tile and device."""
        pixels: dict[str, Any] = {
            "mpp": self.slide.mpp,
            "sampling": [self.resampling.level, self.resampling.ratio, self.resampling.shape],
            "model": self.model.sha256,
            "tissue": self.tissue,
            "precision": self.precision,
            "outputs": self.outputs,
            "block": self.block,
            "levels": self.levels,
        }
        if self.precision != "float32" or self.exactness != "exact":
            pixels |= {"tile": self.tile, "device": self.device.partition(":")[0]}
        # Left out if unused, so that runs keep the signatures they had before these existed.
        if self.tta != "none":
            pixels["tta"] = self.tta
        if self.statistics:
            pixels["statistics"] = [[scale.mean, scale.std] for scale in self.statistics]
        return pixels

    @property
    def label_groups(self) -> tuple[str, ...]:
        """The names of the label groups, in the order in which they are predicted."""
        return self.groups or (self.label,)

    @property
    def pyramid(self) -> Pyramid:
        """The pyramid of each label group."""
        return Pyramid(self.resampling.shape, self.block, self.levels)

    @property
    @override
    def grid(self) -> BlockGrid:
        """The blocks of the whole slide."""
        return BlockGrid(self.resampling.shape, self.block)

    @property
    def probabilities(self) -> bool:
        """Whether class probabilities are stored too."""
        return "probabilities" in self.outputs

    @property
    def layout(self) -> RunLayout:
        """What the markers of the run can say."""
        channels = self.classes or MOST_CLASSES
        return RunLayout(
            self.pyramid,
            labels=tuple(f"labels/{name}" for name in self.label_groups),
            channels=((f"probability/{self.label}", channels),) if self.probabilities else (),
            values=self.label_values,
            masked=self.tissue != "none",
        )

    @cached_property
    def region_boxes(self) -> tuple[Box, ...]:
        """The computed regions as disjoint boxes, px of the model's grid."""
        if not self.regions:
            return (Box.from_shape(self.resampling.shape),)
        return merge_boxes(
            find_region(Box(*region), self.slide.shape, self.resampling) for region in self.regions
        )

    @cached_property
    def _boxes_by_block(self) -> dict[BlockIndex, tuple[Box, ...]]:
        """What of each block the regions cover, as disjoint boxes; blocks without are left out."""
        parts: dict[BlockIndex, list[Box]] = {}
        for box in self.region_boxes:
            for index in self.grid.touching(box):
                parts.setdefault(index, []).append(self.grid.core(index).intersection(box))
        return {index: merge_boxes(boxes) for index, boxes in parts.items()}

    def predicted_area(self, mask: TissueMask | None) -> PredictedArea:
        """Return the pixels that are predicted.

        Args:
            mask: tissue, stretched over the slide; None predicts all of the regions.
        """
        return PredictedArea(self.resampling.shape, self.region_boxes, mask)

    def blocks(self) -> tuple[BlockIndex, ...]:
        """Return the blocks of the run, row by row."""
        return tuple(sorted(self._boxes_by_block) if self.regions else self.grid)

    @override
    def marked_boxes(self, index: BlockIndex) -> MarkedBoxes:
        if not self.regions:
            return None
        parts = self._boxes_by_block.get(index, ())
        whole = parts == (self.grid.core(index),)
        return None if whole else tuple((b.y0, b.x0, b.y1, b.x1) for b in parts)


class ImageParameters(_Parameters):
    """The parameters of a run that stores the slide's own pixels beside the labels.

    Attributes:
        slide: the slide.
        mode: "overview" or "full".
        resampling: how its pixels are read from the slide.
        levels: number of pyramid levels, the same as the labels'.
        block: side of a block, px of the stored image.
    """

    mode: Literal["overview", "full"]
    resampling: StoredResampling
    levels: Levels
    block: Block

    def _pixels(self) -> dict[str, Any]:
        return {
            "image": self.mode,
            "sampling": [self.resampling.level, self.resampling.ratio, self.resampling.shape],
            "levels": self.levels,
        }

    @property
    def pyramid(self) -> Pyramid:
        """The pyramid of the image."""
        return Pyramid(self.resampling.shape, self.block, self.levels)

    @property
    def layout(self) -> RunLayout:
        """What the markers of the image can say."""
        return RunLayout(self.pyramid, labels=(), channels=(("", 3),))

    @property
    @override
    def grid(self) -> BlockGrid:
        """The blocks of the image."""
        return BlockGrid(self.resampling.shape, self.block)

    def blocks(self) -> tuple[BlockIndex, ...]:
        """Return all blocks, row by row."""
        return tuple(self.grid)


P = TypeVar("P", LabelParameters, ImageParameters)


def parse_parameters(record: RunRecord, kind: type[P]) -> P:
    """Return the parameters of a stored run; no type is converted into another.

    Raises:
        ValidationError: they are damaged, or were written by another version.
    """
    return kind.model_validate_json(json.dumps(record.parameters), strict=True)


def read_parameters(progress: Progress, kind: type[P]) -> P | None:
    """Return the parameters of a stored run; None where there is no run.

    Raises:
        DamagedError: they are damaged, or were written by another version.
        OutputError: they can't be read.
    """
    record = progress.read_run()
    if record is None:
        return None
    try:
        parameters = parse_parameters(record, kind)
        what = ""
    except ValidationError as error:
        what = explain_invalid(error)
    if what or (isinstance(parameters, LabelParameters) and parameters.label != progress.name):
        raise DamagedError(
            f"{progress.store}: {progress.name!r} was computed by another version of wsi-unet, or "
            f"is damaged ({what or 'it has another name'}); `overwrite=True` computes it again"
        )
    return parameters


def find_region(region: Box, slide_shape: Shape, resampling: Resampling) -> Box:
    """Return the pixels of the model's grid that belong to a region.

    They are those whose centres lie in it. A region that ends where the slide does goes on to the
    end of the grid, whose last pixel may reach beyond the slide.

    Args:
        region: px of level 0, inside the slide.
        slide_shape: (rows, columns) of level 0, px.
        resampling: the model's grid.
    """
    pixels = find_pixels(region, resampling.downsample)
    rows, columns = resampling.shape
    y1 = rows if region.y1 >= slide_shape[0] else pixels.y1
    x1 = columns if region.x1 >= slide_shape[1] else pixels.x1
    return Box(pixels.y0, pixels.x0, y1, x1).intersection(Box.from_shape(resampling.shape))
