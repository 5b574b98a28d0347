"""The objects that `find_objects` has stored of a result, read as numbers of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.label_rasters import LabelsLike, LabelValues
from wsi_unet.labels.contents import choose_name, open_output, read_label_names, read_run_name
from wsi_unet.locations import Location
from wsi_unet.logs import warn
from wsi_unet.objects.painting.stored import StoredObjects, number_by_identity
from wsi_unet.objects.records import StageFiles

UINT64 = np.dtype(np.uint64)


@dataclass(frozen=True, eq=False)
class ObjectNumbers(LabelValues):
    """Numbers of stored objects; 0 where there is none.

    Attributes:
        objects: the objects.
    """

    objects: StoredObjects

    @override
    def read(self, box: Box) -> NDArray[np.int64]:
        return self.objects.paint(box, number_by_identity, UINT64).view(np.int64)


def find_stored_objects(labels: LabelsLike, name: str | None) -> ObjectNumbers | None:
    """Return the stored objects of labels, None if there are none that belong to them as they are.

    Args:
        labels: the labels; only results have objects, not images or arrays.
        name: name of the label group, if there are several.

    Raises:
        OutputError: a folder isn't an output of wsi-unet, or has no such label group.
    """
    if isinstance(labels, xr.DataArray):
        return None
    location = Location.parse(labels)
    if not (location.is_url or location.path.is_dir()):
        return None
    store = open_output(location)
    label = choose_name(location, "labels", read_label_names(store), name)
    if StageFiles(store, read_run_name(store, label), label).read_stage() is None:
        return None
    try:
        return ObjectNumbers(StoredObjects.open(store, label))
    except OutputError as error:
        warn(f"{error}; until then, its objects are the connected components of its labels")
        return None
