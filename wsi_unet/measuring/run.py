"""`measure`: from results and regions to a table."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from wsi_unet import logs
from wsi_unet.annotations.annotation import Annotations
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.errors import AnnotationError, OptionError
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster
from wsi_unet.ground_truth.grids import Grid
from wsi_unet.labels.contents import Output
from wsi_unet.locations import Location
from wsi_unet.measuring.areas import count_pixels
from wsi_unet.measuring.object_statistics import measure_objects
from wsi_unet.measuring.region_files import find_region_file
from wsi_unet.measuring.sources import MeasuredLabels, open_result
from wsi_unet.measuring.table import make_rows


def measure(
    outputs: Output | Iterable[Output],
    regions: str | os.PathLike[str] | Location,
    *,
    label: str | None = None,
    areas_only: bool = False,
    edited: bool = False,
) -> pa.Table:
    """Measure regions of finished results: areas of the classes, and their objects.

    >>> table = wsi_unet.measure("slide.ome.zarr", "regions.geojson")    # doctest: +SKIP
    >>> table.to_pandas()                                                # doctest: +SKIP

    Areas are of pixels whose centres lie in a region and where the model looked. An object belongs
    to each region that its centroid lies in. Regions may overlap.

    Args:
        outputs: a result, or several: folders or s3:// URLs.
        regions: GeoJSON or ASAP XML in full-resolution px of the slide, for all results; or a
            folder with one such file per slide, "a.geojson" for "a.ome.zarr".
        label: name of the label group; None takes all that a result holds.
        areas_only: leave the objects out, which then needn't have been found.
        edited: measure the objects as people have corrected them (`import_annotations`); areas are
            those of their pixels.

    Returns:
        One row per result, label group, region and class. Null means that there is nothing to
        divide by or to average. docs/reference/measure.md defines every column.

    Raises:
        AnnotationError: regions can't be read, or lie outside of the slide.
        OptionError: there are no results, or the folder doesn't have just one file for each.
        OutputError: there is no such result or label group, its labels aren't finished or are
            damaged, or their objects, or corrections of these, aren't there or not current.
    """
    given = [outputs] if isinstance(outputs, str | os.PathLike | Location) else list(outputs)
    unique = {Location.parse(output): output for output in given}
    if not unique:
        raise OptionError("there are no results to measure; give at least one", option="outputs")
    groups = [
        group
        for output in unique.values()
        for group in open_result(output, label, areas_only=areas_only, edited=edited)
    ]
    drawing = _Drawing()
    drawn = [drawing.draw(find_region_file(regions, g.location, g.slide), g) for g in groups]
    drawing.warn_of_several_slides()
    tables = []
    for group, raster in zip(groups, drawn, strict=True):
        pixels = count_pixels(group, raster)
        found = None if group.objects is None else measure_objects(group.objects, group, raster)
        tables.append(make_rows(group, raster, pixels, found))
        logs.event("measured", output=group.result, label=group.source.label, rows=len(tables[-1]))
    return pa.concat_tables(tables, promote_options="default")


class _Drawing:
    """Regions on the pixels of labels; each file is read once, and each grid drawn on once."""

    def __init__(self) -> None:
        self._read: dict[Path, Annotations] = {}
        self._drawn: dict[tuple[Path, Grid], AnnotationRaster] = {}
        self._slides: dict[Path, dict[str, Location]] = {}

    def draw(self, path: Path, labels: MeasuredLabels) -> AnnotationRaster:
        """Return the regions of a file on the pixels of labels.

        Raises:
            AnnotationError: they can't be read, or one lies outside of the slide.
        """
        if path not in self._read:
            self._read[path] = read_annotations(path)
            if self._read[path].left_out:
                logs.warn(f"{path}: {self._read[path].left_out}")
        grid = labels.grid
        if grid.slide is not None:
            self._slides.setdefault(path, {}).setdefault(grid.slide, labels.location)
        if (path, grid) not in self._drawn:
            try:
                raster = AnnotationRaster(path, self._read[path], grid)
            except AnnotationError as error:
                raise AnnotationError(f"{labels.location}: {error}") from error
            self._drawn[path, grid] = raster
        return self._drawn[path, grid]

    def warn_of_several_slides(self) -> None:
        """Warn where one file's regions are measured on several slides."""
        for path, slides in self._slides.items():
            if len(slides) > 1:
                one, other = list(slides.values())[:2]
                logs.warn(
                    f"{path}: its regions are measured on {len(slides)} slides ({one.name}, "
                    f"{other.name}{' …' if len(slides) > 2 else ''}), although outlines belong to "
                    "one; for others, give `regions` a folder with a file per slide"
                )
