"""What will be done, worked out before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsi_unet.errors import OptionError, SignatureError, SlideError
from wsi_unet.geometry import Box, round_up
from wsi_unet.labels.pyramid import CHUNK, Pyramid
from wsi_unet.models.border import derive_border
from wsi_unet.models.checkpoint import Model
from wsi_unet.segment.block import Mask
from wsi_unet.segment.costs import Costs, check_affordable, count_costs
from wsi_unet.segment.options import DEFAULT_BLOCK, Options
from wsi_unet.segment.parameters import (
    ImageParameters,
    LabelParameters,
    ModelReference,
    SlideReference,
    differences,
)
from wsi_unet.segment.probe import Measured, ProbeRequest
from wsi_unet.segment.target import Target
from wsi_unet.slides.resample import Sampling, choose_sampling
from wsi_unet.slides.slide import PixelSize, Slide, check_mpp
from wsi_unet.slides.tissue import find_tissue, load_mask

IMAGE_BLOCK = 2048
OVERVIEW_REDUCTION = 8
OVERVIEW_SIDE = 2048
"""Longer side, px, that the overview of a small slide keeps if it has it."""


@dataclass(frozen=True)
class Plan:
    """What a run will do and what it costs.

    Attributes:
        output: where the result goes.
        labels: the label group's parameters, resolved.
        image: those of the slide's image; None where none is stored.
        costs: what it needs.
        measured: what a worker measured; its speed and memory.
        mask: tissue, stretched over the slide; None predicts everywhere.
        resumes: whether blocks of an earlier run with this signature are kept.
        warnings: what a careful person would want to know, one line each.
    """

    output: Path
    labels: LabelParameters
    image: ImageParameters | None
    costs: Costs
    measured: Measured
    mask: Mask | None = field(repr=False)
    resumes: bool
    warnings: tuple[str, ...]

    @property
    def signature(self) -> str:
        """Hash of everything that decides the labels."""
        return self.labels.signature()

    @property
    def mpp(self) -> tuple[float, float] | None:
        """(y, x) size of a label pixel, µm; None where unknown."""
        return label_mpp(self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        sampling = self.labels.sampling
        return {
            "output": str(self.output),
            "signature": self.signature,
            "slide": self.labels.slide.model_dump(mode="json"),
            "model": self.labels.model.model_dump(mode="json"),
            "label": self.labels.label,
            "mpp": self.mpp,
            "sampling": asdict(sampling),
            "resampled": sampling.ratio != (1.0, 1.0),
            "levels": self.labels.levels,
            "block": self.labels.block,
            "tile": self.labels.tile,
            "blocks": len(self.labels.blocks()),
            "precision": self.labels.precision,
            "device": self.labels.device,
            "exactness": self.labels.exactness,
            "agreement": self.labels.agreement,
            "tissue": self.labels.tissue,
            "outputs": list(self.labels.outputs),
            "regions": [list(region) for region in self.labels.regions],
            "image": None if self.image is None else self.image.mode,
            "resumes": self.resumes,
            "warnings": list(self.warnings),
            **self.costs.to_json(),
            "mpx_per_s": self.measured.mpx_per_s,
        }


def make_plan(
    slide: Slide,
    model: Model,
    target: Target,
    options: Options,
    *,
    probe: Callable[[ProbeRequest], Measured],
    processes: int,
    processes_per_host: int,
) -> Plan:
    """Work out a run; nothing is written.

    Args:
        slide: the open slide.
        model: the checked model.
        target: where it goes.
        options: what the caller wants.
        probe: measures on a worker.
        processes: number of worker processes.
        processes_per_host: how many of them share a host's cores.

    Raises:
        InputError: an option doesn't fit the slide or the model.
        SignatureError: the output holds a run that differs in what decides the pixels.
        PlanError: the machine can't afford it.
    """
    border = derive_border(model.spec.architecture)
    stored = target.stored
    reference = refer_to(slide, options)
    sampling = sample_for(slide, reference, model)
    block = options.block or (stored.block if stored else DEFAULT_BLOCK)
    tile = options.tile or (stored.tile if stored else None)
    _check_tile(tile, border.period, block)
    tissue, mask = _tissue(slide, target, options)
    regions = _regions(slide, options, stored)
    levels = target.levels or Pyramid.levels_for(sampling.shape)
    image = _image(slide, reference, target, options, levels)
    measured = probe(
        ProbeRequest(
            slide=reference,
            sampling=sampling,
            model=str(model.path.absolute()),
            device=_choice(options.device, stored.device if stored else None),
            precision=_choice(options.precision, stored.precision if stored else None),
            tile=tile,
            block=block,
            mask=mask,
            probabilities=options.probabilities,
            agreement=None if stored is None else stored.agreement,
            processes_per_host=processes_per_host,
        )
    )
    labels = LabelParameters(
        slide=reference,
        model=ModelReference(path=str(model.path.absolute()), name=model.spec.name, sha256=model.sha256),
        label=target.label,
        sampling=sampling,
        levels=levels,
        block=block,
        tile=measured.tile,
        precision=measured.precision,
        device=measured.device,
        tissue=tissue,
        outputs=options.outputs,
        regions=regions,
        agreement=measured.agreement,
        processes_per_host=processes_per_host,
    )
    _check_same_run(target, labels)
    costs = count_costs(
        labels,
        image,
        border=border,
        classes=len(model.spec.classes),
        mask=mask,
        measured=measured,
        processes=processes,
    )
    warnings = check_affordable(
        labels, costs, measured, processes=processes, free_disk=target.free_disk
    )
    if not costs.tissue:
        warnings.append("no tissue was found; --tissue none predicts everywhere")
    return Plan(
        output=target.path,
        labels=labels,
        image=image,
        costs=costs,
        measured=measured,
        mask=mask,
        resumes=stored is not None,
        warnings=tuple(warnings),
    )


def refer_to(slide: Slide, options: Options) -> SlideReference:
    """Return how workers find the slide, with the caller's pixel size where one is given.

    Raises:
        SlideError: the pixel size is absurd; the message says how to give it.
    """
    mpp = slide.mpp if options.mpp is None else PixelSize(options.mpp, options.mpp)
    if mpp is not None:
        check_mpp(mpp)
    return SlideReference(
        path=str(slide.path.absolute()),
        name=slide.path.name,
        reader=slide.reader,
        fingerprint=slide.fingerprint(),
        shape=slide.shape,
        mpp=None if mpp is None else (mpp.y, mpp.x),
    )


def sample_for(slide: Slide, reference: SlideReference, model: Model) -> Sampling:
    """Return how the model's pixel grid is read from the slide.

    Raises:
        SlideError: the model needs a pixel size that the slide doesn't have.
    """
    wanted = model.spec.mpp
    if wanted is None:
        return choose_sampling(slide, (1.0, 1.0))
    if reference.mpp is None:
        raise SlideError(
            f"{reference.name} doesn't say how large its pixels are, and {model.spec.name} needs "
            f"{wanted} µm; give the slide's pixel size with --mpp"
        )
    return choose_sampling(slide, (wanted / reference.mpp[0], wanted / reference.mpp[1]))


def label_mpp(labels: LabelParameters) -> tuple[float, float] | None:
    """Return the (y, x) size of a label pixel, µm; None where unknown."""
    if labels.slide.mpp is None:
        return None
    (y, x), (fy, fx) = labels.slide.mpp, labels.sampling.downsample
    return y * fy, x * fx


def _choice(wanted: str, stored: str | None) -> str:
    return stored if wanted == "auto" and stored is not None else wanted


def _check_tile(tile: int | None, period: int, block: int) -> None:
    if block % period:
        raise OptionError(f"block {block} is not a multiple of the network's period {period}")
    if tile is not None and (tile % period or tile > block):
        nearest = min(round_up(tile, period), block)
        raise OptionError(
            f"tile {tile} must be a multiple of the network's period {period} and at most the "
            f"block {block}; try {nearest}"
        )


def _tissue(slide: Slide, target: Target, options: Options) -> tuple[str, Mask | None]:
    if options.tissue == "none":
        return "none", None
    if options.mask_path is not None:
        mask = load_mask(options.mask_path, slide)
        return f"mask:{_digest(mask)}", mask
    if target.stored is not None and target.stored.tissue == "auto" and target.mask is not None:
        return "auto", target.mask
    return "auto", find_tissue(slide)


def _digest(mask: Mask) -> str:
    """Return a hash of a mask's size and pixels."""
    return hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def _regions(
    slide: Slide, options: Options, stored: LabelParameters | None
) -> tuple[tuple[int, int, int, int], ...]:
    """Return the computed regions: an earlier run's grow, none means all of the slide."""
    wanted = options.region_box
    if wanted is None:
        return ()
    inside = wanted.intersection(Box.of_shape(slide.shape))
    if not inside.area:
        rows, columns = slide.shape
        raise OptionError(
            f"region {options.region} lies outside the slide, which is {columns} x {rows} px"
        )
    region = (inside.y0, inside.x0, inside.y1, inside.x1)
    if stored is None:
        return (region,)
    if not stored.regions:
        return ()
    return stored.regions if region in stored.regions else (*stored.regions, region)


def _image(
    slide: Slide, reference: SlideReference, target: Target, options: Options, levels: int
) -> ImageParameters | None:
    if target.levels is not None:  # the store has its image, or was made without one
        mode = target.stored_image.mode if target.stored_image else "none"
        if options.image not in (None, mode):
            raise SignatureError(
                f"{target.path}: image ({mode} there, {options.image} asked for) can't be changed; "
                "choose another output, or --overwrite"
            )
        return target.stored_image
    if options.image == "none":
        return None
    reduction = 1.0
    if options.image != "full":
        while reduction < OVERVIEW_REDUCTION and max(slide.shape) >= 2 * reduction * OVERVIEW_SIDE:
            reduction *= 2
    return ImageParameters(
        slide=reference,
        mode="full" if options.image == "full" else "overview",
        sampling=choose_sampling(slide, (reduction, reduction)),
        levels=levels,
        block=max(CHUNK, IMAGE_BLOCK),
    )


def _check_same_run(target: Target, labels: LabelParameters) -> None:
    slides = [
        target.stored and target.stored.slide,
        target.stored_image and target.stored_image.slide,
    ]
    for other in slides:
        if other and other.fingerprint != labels.slide.fingerprint:
            raise SignatureError(
                f"{target.path} holds another slide ({other.name}); choose another output, or "
                "--overwrite"
            )
    if target.stored is None:
        return
    found = differences(target.stored.identity(), labels.identity())
    if found:
        raise SignatureError(
            f"{target.path}: {target.label!r} was computed with another {', '.join(found)}; choose "
            "another output, or --overwrite"
        )
