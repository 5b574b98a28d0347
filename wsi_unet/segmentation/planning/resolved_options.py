"""Resolving the options that need no worker: pixel grid, blocks, tissue, regions, image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from wsi_unet.errors import OptionError, SignatureError, SlideError
from wsi_unet.geometry import BlockGrid, Box, round_up
from wsi_unet.labels.pyramid import LONGEST_SIDE, MOST_BLOCKS, Pyramid
from wsi_unet.locations import Location
from wsi_unet.models.inference.ensemble import Ensemble, IntensityStatistics
from wsi_unet.models.spec import ModelSpec
from wsi_unet.segmentation.differences import describe_differences
from wsi_unet.segmentation.parameters import (
    MOST_REGIONS,
    ImageParameters,
    LabelParameters,
    find_region,
)
from wsi_unet.segmentation.planning.options import (
    DEFAULT_BLOCK,
    MOST_ENLARGED,
    Options,
)
from wsi_unet.segmentation.planning.output_state import OutputState
from wsi_unet.segmentation.references import SlideReference
from wsi_unet.slides.colour_statistics import ColourSums, measure_colours
from wsi_unet.slides.levels import PixelSize, check_mpp, format_mpp
from wsi_unet.slides.resample import Resampling, choose_resampling, open_raster
from wsi_unet.slides.slide import Slide
from wsi_unet.slides.tissue.appearance import Appearance
from wsi_unet.slides.tissue.detection import look_at_tissue, survey_tissue
from wsi_unet.slides.tissue.mask import TissueMask, mask_digest
from wsi_unet.slides.tissue.mask_files import load_mask
from wsi_unet.wording import write_size

IMAGE_BLOCK = 2048
OVERVIEW_REDUCTION = 8
SCALE_TOLERANCE = 0.01
"""By what share pixels may exceed `MOST_ENLARGED`: slides and models state rounded sizes."""
OVERVIEW_SIDE = 2048
"""Longer side, px, that the overview of a small slide keeps if it has it."""


@dataclass(frozen=True)
class ResolvedOptions:
    """A run's options with every choice made that needs no worker.

    Attributes:
        slide: how workers find the slide.
        resampling: how the model's pixel grid is read from it.
        levels: number of pyramid levels.
        block: side of a block, px.
        tile: side of a tile's core, px; None where a worker will choose.
        tissue: "none", or "auto:" or "mask:" and the sha256 of the mask.
        mask: tissue, stretched over the slide; None predicts everywhere.
        regions: computed regions as level-0 boxes (y0, x0, y1, x1); () is the whole slide.
        image: the picture of the slide that is stored; None for none.
        statistics: what each model's intensities are normalised with; () is their own constants.
        appearance: what the slide's tissue looks like, if a model's card says what it was trained
            on.
        warnings: what makes the result doubtful, one line each.
    """

    slide: SlideReference
    resampling: Resampling
    levels: int
    block: int
    tile: int | None
    tissue: str
    mask: TissueMask | None = field(repr=False)
    regions: tuple[tuple[int, int, int, int], ...]
    image: ImageParameters | None
    statistics: tuple[IntensityStatistics, ...] = ()
    appearance: Appearance | None = None
    warnings: tuple[str, ...] = ()


def resolve_options(
    slide: Slide, ensemble: Ensemble, output: OutputState, options: Options
) -> ResolvedOptions:
    """Make the choices that follow from slide, models, output and options alone.

    Raises:
        InputError: an option doesn't fit the slide or the model.
        SignatureError: the output holds another slide, or another image than is wanted.
    """
    stored = output.stored
    reference = make_slide_reference(slide, options.mpp, options.series)
    _check_same_slide(output, reference)
    resampling = fit_resampling(slide, reference, ensemble.spec)
    if not options.allow_scale:
        check_scale(reference, ensemble.spec)
    levels = _choose_levels(output, resampling)
    block = options.block or (stored.block if stored else DEFAULT_BLOCK)
    _check_size(slide, resampling, block)
    tile = options.tile or ensemble.tile or (stored.tile if stored else None)
    _check_tile(tile, ensemble, block)
    regions = _choose_regions(slide, options, stored, resampling)
    image = _choose_image(slide, reference, output, options, levels)
    tissue, mask, seen = _choose_tissue(slide, output, options)
    appearance = _choose_appearance(slide, ensemble, mask, seen, stored)
    statistics, warnings = _choose_statistics(slide, ensemble, resampling, mask, stored)
    return ResolvedOptions(
        slide=reference,
        resampling=resampling,
        levels=levels,
        block=block,
        tile=tile,
        tissue=tissue,
        mask=mask,
        regions=regions,
        image=image,
        statistics=statistics,
        appearance=appearance,
        warnings=(*warnings, *_compare_appearance(ensemble, appearance)),
    )


def make_slide_reference(
    slide: Slide, given_mpp: float | None, series: str | int | None = None
) -> SlideReference:
    """Return how workers find the slide.

    Args:
        slide: the open slide.
        given_mpp: size of its level-0 pixels, µm, that replaces what the file says.
        series: the image of the file that was asked for; None if it was the largest.

    Raises:
        SlideError: the pixel size is absurd; the message says how to give it.
    """
    mpp = slide.mpp if given_mpp is None else PixelSize(given_mpp, given_mpp)
    if mpp is not None:
        check_mpp(mpp)
    location = Location.parse(slide.path)
    return SlideReference(
        path=str(location),
        name=location.name,
        reader=slide.reader,
        fingerprint=slide.fingerprint(),
        shape=slide.shape,
        mpp=None if mpp is None else (mpp.y, mpp.x),
        series=None if series is None else str(series),
        origin=slide.origin,
    )


def fit_resampling(slide: Slide, reference: SlideReference, spec: ModelSpec) -> Resampling:
    """Return how the model's pixel grid is read from the slide.

    Raises:
        SlideError: the model needs a pixel size that the slide doesn't have.
    """
    wanted = spec.mpp
    if wanted is None:
        return choose_resampling(slide, (1.0, 1.0))
    if reference.mpp is None:
        raise SlideError(
            f"{reference.name} doesn't say how large its pixels are, and {spec.name} needs "
            f"{format_mpp(wanted)} µm; give the slide's pixel size as `mpp`"
        )
    return choose_resampling(slide, (wanted / reference.mpp[0], wanted / reference.mpp[1]))


def check_scale(reference: SlideReference, spec: ModelSpec) -> None:
    """Raise an error if the slide shows far less detail than the model was made for.

    Raises:
        SlideError: its pixels are more than `MOST_ENLARGED` times as large as the model's; the
            message says what may be wrong.
    """
    wanted = spec.mpp
    if reference.mpp is None or wanted is None:
        return
    size = max(reference.mpp)
    factor = size / wanted
    if factor > MOST_ENLARGED * (1 + SCALE_TOLERANCE):
        raise SlideError(
            f"{reference.name}: the slide's pixels are {factor:.3g} times as large as those "
            f"that {spec.name} is for ({format_mpp(size)} and {format_mpp(wanted)} µm); if the "
            "slide's pixel size is wrong, give `mpp`; `allow_scale=True` segments it all the same"
        )


def _choose_levels(output: OutputState, resampling: Resampling) -> int:
    """Return the number of levels: that of what stays in the store, or what the grid needs."""
    needed = Pyramid.count_levels(resampling.shape)
    if output.stored is not None and not output.other_runs:
        return needed
    return output.levels or needed


def _check_size(slide: Slide, resampling: Resampling, block: int) -> None:
    """Raise an error if what is recorded about the run could not be read again."""
    if max(*slide.shape, *resampling.shape) > LONGEST_SIDE:
        raise SlideError(
            f"{slide}: {write_size(slide.shape)} are more than the {LONGEST_SIDE} px "
            "a side that can be segmented; check the file"
        )
    blocks = max(len(BlockGrid(resampling.shape, block)), len(BlockGrid(slide.shape, IMAGE_BLOCK)))
    if blocks > MOST_BLOCKS:
        raise OptionError(
            f"block {block} makes {blocks} blocks, more than {MOST_BLOCKS}; choose a larger one",
            option="block",
        )


def _check_same_slide(output: OutputState, slide: SlideReference) -> None:
    if output.slide is None:
        return
    name, fingerprint = output.slide
    if fingerprint != slide.fingerprint:
        hint = "; choose another `output`, or `overwrite=True` replaces it"
        if output.other_runs:
            labels = ", ".join(output.other_runs)
            hint = f", with the labels {labels} too; choose another `output`"
        raise SignatureError(f"{output.location} holds another slide ({name}){hint}")


def _check_tile(tile: int | None, ensemble: Ensemble, block: int) -> None:
    fixed, period = ensemble.tile, ensemble.border().period
    if fixed is not None and tile != fixed:
        raise OptionError(
            f"tile {tile}: {ensemble.name} is run on windows of one size, which makes tiles of "
            f"{fixed} px; leave `tile` out",
            option="tile",
        )
    if block % period:
        raise OptionError(
            f"block {block} is not a multiple of the network's period {period}", option="block"
        )
    if tile is not None and (tile % period or tile > block):
        nearest = min(round_up(tile, period), block)
        raise OptionError(
            f"tile {tile} must be a multiple of the network's period {period} and at most the "
            f"block {block}; try `tile={nearest}`",
            option="tile",
        )


def _choose_statistics(
    slide: Slide,
    ensemble: Ensemble,
    resampling: Resampling,
    mask: TissueMask | None,
    stored: LabelParameters | None,
) -> tuple[tuple[IntensityStatistics, ...], tuple[str, ...]]:
    """Return what each model's intensities are normalised with, and warnings about it.

    An earlier run's are kept. Where no model asks for the slide's own, there is nothing to choose.
    """
    if not ensemble.normalised_by_slide:
        return (), ()
    if stored is not None and len(stored.statistics) == len(ensemble.models):
        return stored.statistics, ()
    colours = measure_colours(open_raster(slide, resampling), mask)
    if colours is None:
        return ensemble.constants, (
            f"{ensemble.name} normalises with the statistics of the slide's tissue, but no tissue "
            "was found: the model's own constants are used",
        )
    return tuple(
        _normalise_with(colours, model.spec, constants)
        for model, constants in zip(ensemble.models, ensemble.constants, strict=True)
    ), ()


def _normalise_with(
    colours: ColourSums, spec: ModelSpec, constants: IntensityStatistics
) -> IntensityStatistics:
    if spec.normalisation.statistics == "model":
        return constants
    return IntensityStatistics(*colours.channels(spec.channel_order))


def _choose_tissue(
    slide: Slide, output: OutputState, options: Options
) -> tuple[str, TissueMask | None, Appearance | None]:
    """Return the tissue mask's name, the mask, and what the tissue looks like if it was seen."""
    if options.tissue == "none":
        return "none", None, None
    if options.mask_path is not None:
        mask = load_mask(options.mask_path, slide)
        return f"mask:{mask_digest(mask)}", mask, None
    stored = output.stored.tissue if output.stored is not None else ""
    if output.mask is not None and stored == f"auto:{mask_digest(output.mask)}":
        return stored, output.mask, None
    found = survey_tissue(slide)
    return f"auto:{mask_digest(found.mask)}", found.mask, found.appearance


def _choose_appearance(
    slide: Slide,
    ensemble: Ensemble,
    mask: TissueMask | None,
    seen: Appearance | None,
    stored: LabelParameters | None,
) -> Appearance | None:
    """Return what the slide's tissue looks like, if any model's card says what it knows."""
    if all(model.spec.appearance is None for model in ensemble.models):
        return None
    if seen is None and stored is not None:
        seen = stored.appearance
    return look_at_tissue(slide, mask) if seen is None else seen


def _compare_appearance(ensemble: Ensemble, tissue: Appearance | None) -> Iterator[str]:
    """Yield how tissue looks unlike what the models were trained on."""
    if tissue is None:
        return
    for spec in (model.spec for model in ensemble.models):
        difference = spec.appearance and spec.appearance.explain_difference(tissue)
        if difference:
            yield (
                f"the slide looks unlike anything that {spec.name} was trained on ({difference}), "
                "so its labels may mean nothing; look at them before using them"
            )


def _choose_regions(
    slide: Slide, options: Options, stored: LabelParameters | None, resampling: Resampling
) -> tuple[tuple[int, int, int, int], ...]:
    """Return the computed regions: an earlier run's and the wanted one; () is the whole slide."""
    wanted = options.region_box
    if wanted is None:
        return ()
    inside = wanted.intersection(Box.from_shape(slide.shape))
    if not inside.area:
        raise OptionError(
            f"`region={options.region}` lies outside the slide, which is "
            f"{write_size(slide.shape)}; give full-resolution pixels X,Y,W,H inside it",
            option="region",
        )
    if not find_region(inside, slide.shape, resampling).area:
        fy, fx = resampling.downsample
        raise OptionError(
            f"`region={options.region}` contains the centre of no pixel of the labels, which are "
            f"{fx:.3g} x {fy:.3g} pixels of the slide large; give a larger one",
            option="region",
        )
    region = (inside.y0, inside.x0, inside.y1, inside.x1)
    if stored is None:
        return (region,)
    if not stored.regions:
        return ()
    if region not in stored.regions and len(stored.regions) >= MOST_REGIONS:
        raise OptionError(
            f"the output has {MOST_REGIONS} regions already, and no run can have more; segment the "
            "whole slide, or choose another `output`",
            option="region",
        )
    return stored.regions if region in stored.regions else (*stored.regions, region)


def _choose_image(
    slide: Slide, reference: SlideReference, output: OutputState, options: Options, levels: int
) -> ImageParameters | None:
    stored = output.stored_image
    if stored is not None or output.levels is not None:  # started with its image, or without one
        known = "none" if stored is None else stored.mode
        if options.image not in (None, known):
            raise SignatureError(
                f"{output.location}: its image ({known} stored, {options.image} requested) can't "
                "be changed; choose another `output`, or `overwrite=True` replaces it"
            )
        if stored is None:
            return None
        image = _make_image(slide, reference, stored.mode, levels)
        changed = describe_differences(stored.identity(), image.identity())
        if changed or stored.block != image.block:
            what = ", ".join(changed or ["block"])
            raise SignatureError(
                f"{output.location}: its image was stored with another {what}; choose another "
                "`output`, or `overwrite=True` replaces it"
            )
        return image
    if options.image == "none":
        return None
    mode: Literal["overview", "full"] = "full" if options.image == "full" else "overview"
    return _make_image(slide, reference, mode, levels)


def _make_image(
    slide: Slide, reference: SlideReference, mode: Literal["overview", "full"], levels: int
) -> ImageParameters:
    """Return how the slide's image is stored, which follows from the slide and the mode alone."""
    reduction = 1.0
    if mode != "full":
        while reduction < OVERVIEW_REDUCTION and max(slide.shape) >= 2 * reduction * OVERVIEW_SIDE:
            reduction *= 2
    return ImageParameters(
        slide=reference,
        mode=mode,
        resampling=choose_resampling(slide, (reduction, reduction)),
        levels=levels,
        block=IMAGE_BLOCK,
    )
