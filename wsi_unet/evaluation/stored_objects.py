"""The objects that `find_objects` has stored of a result, read as numbers of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.corrections.reading import EditedObjects, find_edited_label
from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.label_rasters import LabelsLike, LabelValues
from wsi_unet.labels.contents import choose_name, open_output, read_label_names, read_run_name
from wsi_unet.locations import Location
from wsi_unet.logs import warn
from wsi_unet.objects.painting.stored import StoredObjects, number_by_identity
from wsi_unet.objects.records import StageFiles

UINT64 = np.dtype(np.uint64)


class ObjectNumbers(LabelValues, Protocol):
    """Numbers of stored objects; 0 where there is none."""

    @property
    def signature(self) -> str:
        """What identifies their table."""


@dataclass(frozen=True, eq=False)
class _FoundNumbers(ObjectNumbers):
    """Numbers of the objects that `find_objects` has found."""

    objects: StoredObjects

    @property
    @override
    def signature(self) -> str:
        return self.objects.signature

    @override
    def read(self, box: Box) -> NDArray[np.int64]:
        return self.objects.paint(box, number_by_identity, UINT64).view(np.int64)


@dataclass(frozen=True, eq=False)
class _EditedNumbers(ObjectNumbers):
    """Numbers of objects that people have corrected; the smallest lie on top."""

    objects: EditedObjects

    @property
    @override
    def signature(self) -> str:
        return self.objects.signature

    @override
    def read(self, box: Box) -> NDArray[np.int64]:
        return self.objects.paint_numbers(box)


def find_stored_objects(labels: LabelsLike, name: str | None) -> ObjectNumbers | None:
    """Return the stored objects of labels, None if there are none that belong to them as they are.

    Args:
        labels: the labels; only results have objects, not images or arrays.
        name: name of the label group, if there are several, or that of its corrected objects.

    Raises:
        OutputError: a folder isn't an output of wsi-unet, or has no such label group.
    """
    if isinstance(labels, xr.DataArray):
        return None
    location = Location.parse(labels)
    if not (location.is_url or location.path.is_dir()):
        return None
    store = open_output(location)
    edited = find_edited_label(store, name)
    if edited is not None:
        return _EditedNumbers(EditedObjects.open(store, edited))
    label = choose_name(location, "labels", read_label_names(store), name)
    if StageFiles(store, read_run_name(store, label), label).read_stage() is None:
        return None
    try:
        return _FoundNumbers(StoredObjects.open(store, label))
    except OutputError as error:
        warn(f"{error}; until then, its objects are the connected components of its labels")
        return None
