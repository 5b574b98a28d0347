"""Where QuPath begins to count the pixels of a slide."""

from __future__ import annotations

from wsi_unet.errors import OutputError, SlideError
from wsi_unet.objects.intensities.slide_pixels import SlideReference
from wsi_unet.objects.source import LabelSource
from wsi_unet.slides.opening import open_slide


def find_origin(source: LabelSource) -> tuple[int, int]:
    """Return the (y, x) px of the slide at which the image begins that QuPath shows.

    QuPath cuts a slide to what OpenSlide calls its bounds, which MRXS, SCN and BIF have. Results of
    earlier versions don't say them, so the slide is opened.

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


def _read_origin(source: LabelSource, reference: SlideReference) -> tuple[int, int]:
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
