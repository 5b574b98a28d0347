"""The label groups that a picture shows, and what its legend says about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from wsi_unet.errors import OptionError
from wsi_unet.geometry import BlockGrid
from wsi_unet.labels.contents import choose_name, open_output, parse_run_name, read_label_names
from wsi_unet.labels.predicted import StoredArea
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.reading import open_labels
from wsi_unet.locations import Location
from wsi_unet.objects.records import StageRecord
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.storage.store import ByteStore
from wsi_unet.view.layers import PixelGrid
from wsi_unet.view.legend import LegendEntry
from wsi_unet.view.object_outlines import read_current_record
from wsi_unet.wording import count


@dataclass(frozen=True)
class LabelGroup:
    """A label group that is drawn.

    Attributes:
        labels: its finest level.
        run: name of the run that made it.
        area: where the model looked; None where that isn't known.
        record: what its objects were found by; None if there are none that belong to the labels.
    """

    labels: xr.DataArray
    run: str
    area: PredictedArea | None
    record: StageRecord | None

    @property
    def name(self) -> str:
        """The name of the group."""
        return str(self.labels.name)

    @property
    def grid(self) -> PixelGrid:
        """Where its pixels lie."""
        return PixelGrid.of(self.labels)

    @property
    def class_names(self) -> dict[int, str]:
        """The names of the classes that are drawn, by value."""
        return {value: name for value, name in self.labels.attrs["classes"].items() if value}


def open_groups(location: Location, name: str | Sequence[str] | None) -> list[LabelGroup]:
    """Open label groups; all there are if none is named.

    Raises:
        OptionError: no name is given.
        OutputError: there are no labels, or none of a name.
    """
    store = open_output(location)
    names = [name] if isinstance(name, str) else name
    if names is None:
        known = read_label_names(store)
        names = known or [choose_name(location, "labels", known, None)]  # which says so
    if not names:
        raise OptionError("`label` is empty; name at least one label group", option="label")
    groups: list[LabelGroup] = []
    areas: dict[str, PredictedArea | None] = {}  # groups of one run share it
    for each in dict.fromkeys(names):
        labels = open_labels(location, each)
        run = parse_run_name(labels.attrs["provenance"], each)
        if run not in areas:
            areas[run] = _read_area(store, run, labels)
        record = read_current_record(store, run, each, labels.attrs["finished"])
        groups.append(LabelGroup(labels, run, areas[run], record))
    return groups


def _read_area(store: ByteStore, run: str, labels: xr.DataArray) -> PredictedArea | None:
    """Return where the model of a run looked; None where that isn't known."""
    progress = Progress(store, run)
    record = progress.read_run()
    if record is None:
        return None
    grid = BlockGrid((labels.shape[0], labels.shape[1]), max(labels.data.chunksize))
    finished = labels.attrs["finished"] is not None
    return StoredArea.open(progress, record, grid, finished=finished).read()


def find_outlined(groups: Sequence[LabelGroup]) -> list[LabelGroup]:
    """Return one group of each run whose model didn't look at the whole slide."""
    by_run = {group.run: group for group in groups}.values()
    return [group for group in by_run if group.area is not None and not group.area.whole]


def list_entries(groups: Sequence[LabelGroup], *, whole: bool) -> list[LegendEntry]:
    """Return the legend's entries.

    Args:
        groups: what is drawn.
        whole: whether the picture shows the whole slide; amounts are always those of all labels.
    """
    entries = []
    names = [name for group in groups for name in group.class_names.values()]
    for group in groups:
        for value, class_name in group.class_names.items():
            color = bytes.fromhex(group.labels.attrs["colors"][value][1:])
            name = class_name if names.count(class_name) == 1 else f"{class_name} ({group.name})"
            remark = _describe_amount(group, [value], whole=whole, objects=True)
            entries.append(LegendEntry((color[0], color[1], color[2]), name, remark))
    several = len({group.run for group in groups}) > 1
    for group in find_outlined(groups):
        name = f"where the model looked{f' ({group.run})' if several else ''}"
        remark = _describe_amount(group, [*group.labels.attrs["classes"]], whole=whole)
        entries.append(LegendEntry((0, 0, 0), name, remark, dashed=True))
    return entries


def _describe_amount(
    group: LabelGroup, values: Sequence[int], *, whole: bool, objects: bool = False
) -> str:
    """Return the area of classes together, or the number of pixels where their size isn't known.

    With `objects` it is followed by the number of their objects, where those were found.
    """
    pixels, areas = group.labels.attrs["pixels"], group.labels.attrs["areas_mm2"]
    if all(value in areas for value in values):
        amount = f"{sum(areas[value] for value in values):.3g} mm²"
    elif all(value in pixels for value in values):
        amount = f"{sum(pixels[value] for value in values)} px"
    else:
        return ""
    if objects and group.record is not None:
        found = [each.objects for each in group.record.classes if each.value in values]
        amount += f", {count(sum(found), 'object')}" if found else ""
    return amount if whole else f"{amount} in all"
