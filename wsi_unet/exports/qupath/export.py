"""Writing the objects of a result for QuPath."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wsi_unet.errors import OutputError
from wsi_unet.exports.destination import write_files
from wsi_unet.exports.options import MOST_OBJECTS, ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.qupath.classes import ClassGroup, choose_classes
from wsi_unet.exports.qupath.features import SEPARATOR, FeatureWriter
from wsi_unet.exports.qupath.parts import find_earlier, list_parts, name_part, open_part
from wsi_unet.exports.results import ExportedResult
from wsi_unet.objects.scan_origin import Origin, find_scan_origin


def export_qupath(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write the objects of a result as GeoJSON files for QuPath, of `most_objects` each.

    Several files are numbered: slide-001.geojson.gz and so on. They take their places together,
    and those of an earlier export that aren't replaced are removed.

    Raises:
        OptionError: QuPath wouldn't read a file of that name, there is no such class, or there
            would be more annotations than QuPath can show.
        OutputError: something else is in a file's place, objects aren't there or not current, or
            the slide is needed to know where QuPath begins to count, and isn't there.
    """
    groups = choose_classes(result.groups, options)
    origins = {find_scan_origin(each.group.source) for each in groups}
    (origin,) = origins
    total, most = sum(map(len, groups)), options.most_objects or MOST_OBJECTS
    parts = list_parts(path, max(1, -(-total // most)))
    meter.start(total, "objects")
    writers = [FeatureWriter.open(each, origin) for each in groups]
    features = (texts for writer in writers for texts in writer.write_all())
    provenance = _describe(result, groups, origin)
    with write_files(path, find_earlier(path)) as folder, ThreadPoolExecutor(1) as pool:
        queue = _FeatureQueue(features, total, f"{result.location}")
        for part in parts:
            count = min(most, total - (part.number - 1) * most)
            said = {"objects": count, **provenance}
            with open_part(folder / name_part(path, part).name, part, said, pool) as file:
                skipped = len(SEPARATOR)
                for texts in queue.take(count):
                    file.write(_join(texts)[skipped:])
                    meter.add(len(texts))
                    skipped = 0
        queue.check_end()
    return [name_part(path, part) for part in parts]


def _describe(
    result: ExportedResult, groups: Sequence[ClassGroup], origin: Origin
) -> Mapping[str, Any]:
    """Return what each file says about itself, after which file it is."""
    found = {each.group.name: each.objects for each in groups}
    return {
        "origin": [origin[1], origin[0]],
        "classes": [each.describe() for group in groups for each in group.classes],
    } | result.describe(found)


def _join(texts: pa.Array) -> memoryview:
    """Return texts one after another, without a copy."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)
    first, last = ends[texts.offset], ends[texts.offset + len(texts)]
    return memoryview(data)[first:last]


class _FeatureQueue:
    """Features in order, taken as many at a time as a file holds."""

    def __init__(self, features: Iterable[pa.Array], total: int, where: str) -> None:
        self._features, self._total, self._where = iter(features), total, where
        self._left: pa.Array = pa.array([], pa.string())

    def take(self, count: int) -> Iterator[pa.Array]:
        """Yield the next `count` features.

        Raises:
            OutputError: there aren't so many.
        """
        while count:
            if not len(self._left):
                self._left = self._next()
            taken = self._left.slice(0, count)
            self._left = self._left.slice(len(taken))
            count -= len(taken)
            if len(taken):
                yield taken

    def _next(self) -> pa.Array:
        texts = next(self._features, None)
        if texts is None:
            raise self._contradiction()
        return texts

    def check_end(self) -> None:
        """Refuse features that nobody took.

        Raises:
            OutputError: there are some.
        """
        if len(self._left) or any(map(len, self._features)):
            raise self._contradiction()

    def _contradiction(self) -> OutputError:
        return OutputError(
            f"{self._where}: the table of objects doesn't have the {self._total} that its record "
            "says; find objects again"
        )
