"""The file with a result's regions: the one for all, or its own in a folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from wsi_unet.errors import OptionError, os_errors_as
from wsi_unet.ground_truth.annotation_rasters import annotation_path
from wsi_unet.labels.contents import Output
from wsi_unet.locations import Location

SUFFIXES = (".geojson", ".json", ".xml", ".geojson.gz", ".json.gz", ".xml.gz")
"""What the names of files of regions in a folder end in."""


def find_region_file(regions: Output, result: Location, slide: str) -> Path:
    """Return the file with the regions of a result.

    Args:
        regions: a file, or a folder with a file per slide, named after the result or its slide,
            with the slide's suffix or without.
        result: the result.
        slide: name of its slide, "" if it isn't known.

    Raises:
        AnnotationError: it is a URL.
        OptionError: the folder has none, or several, or can't be read.
    """
    path = annotation_path(regions)
    if not path.is_dir():
        return path
    stem = result.name.removesuffix(".zarr").removesuffix(".ome")
    image = PurePosixPath(slide)
    stems = {stem, image.name, image.stem.removesuffix(".ome")} - {""}
    names = {f"{each}{suffix}" for each in stems for suffix in SUFFIXES}
    with os_errors_as(OptionError, path):
        found = sorted(file.name for file in path.iterdir() if file.name in names)
    if len(found) == 1:
        return path / found[0]
    if not found:
        raise OptionError(
            f"{path}: has no regions of {result}, such as {stem}.geojson; add the file, or leave "
            "the result out",
            option="regions",
        )
    raise OptionError(
        f"{path}: {' and '.join(found)} both name {result.name}; keep one of them",
        option="regions",
    )
