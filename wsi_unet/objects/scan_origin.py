"""Where the area of a slide begins that was scanned: QuPath shows that, and counts from there.

OpenSlide calls that area the slide's bounds; MRXS, SCN and BIF have them.
"""

from __future__ import annotations

from wsi_unet.errors import OutputError, SlideError
from wsi_unet.objects.intensities.slide_pixels import SlideReference
from wsi_unet.objects.source import LabelSource
from wsi_unet.slides.opening import open_slide

Origin = tuple[int, int]
"""(y, x) px of the slide."""


def find_scan_origin(source: LabelSource) -> Origin:
    """Return the (y, x) px of the slide at which the image begins that QuPath shows.

    Results of earlier versions don't say it, so the slide is opened if its format has bounds.

    Raises:
        OutputError: the slide isn't there, or isn't the same.
    """
    reference = source.slide.reference
    if reference is None or not _may_have_bounds(reference):
        return 0, 0
    return reference.origin if reference.origin is not None else _read_origin(source, reference)


def _may_have_bounds(reference: SlideReference) -> bool:
    """Return whether a slide's format has bounds, or the run says them."""
    composed = reference.path.lower().endswith(".scn")
    return reference.origin is not None or reference.reader == "openslide" or composed


def _read_origin(source: LabelSource, reference: SlideReference) -> Origin:
    """Return what the slide itself says.

    Raises:
        OutputError: it isn't there, or isn't the same.
    """
    try:
        with open_slide(reference.path, reference.reader, series=reference.series) as slide:
            if slide.fingerprint() == reference.fingerprint:
                return slide.origin
        reason = "another slide is there now"
    except SlideError as error:
        reason = str(error).removeprefix(f"{reference.path}: ")
    raise OutputError(
        f"{source.store}: QuPath shows slides of this format from where scanning began, and this "
        f"result of an earlier version doesn't say where; put {reference.path} back ({reason})"
    )
