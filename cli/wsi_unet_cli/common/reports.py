"""Plans and reports of runs, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsi_unet.wording import count, plain
from wsi_unet_cli.common.output import (
    duration,
    micrometres,
    percent,
    pixels,
    print_facts,
    print_table,
    size,
)
from wsi_unet_cli.common.text import speak

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wsi_unet.objects.report import ClassObjects, LabelObjects, PartFailure
    from wsi_unet.segmentation.planning.object_plan import ObjectCosts
    from wsi_unet.segmentation.planning.plan import Plan
    from wsi_unet.segmentation.references import ModelReference
    from wsi_unet.segmentation.report import BlockCounts, ClassArea, Failure, Report, Waits
    from wsi_unet.segmentation.worker.measurement import WorkerMeasurement

VIEWS_IN_WORDS = {"none": "", "flips": "4 flips, averaged", "d4": "8 flips and rotations, averaged"}
"""Views that each kind of test-time augmentation averages."""

OBJECT_COLUMNS = ("  class", "objects", "per mm²", "mean area", "split", "dropped", "unsplit")

NOTHING_LEFT = "nothing was left to compute"

MAX_FAILURES = 10
"""Number of failed blocks that are listed; `--json` has all."""


def show_plan(plan: Plan) -> None:
    """Print on stdout what a run would do and what it would cost."""
    labels, costs = plan.labels, plan.costs
    blocks = len(labels.blocks())
    print_facts(
        f"{labels.slide.name}: planned, nothing written",
        [
            ("would write to", f"{plan.output} ({groups_in_words(labels.label_groups)})"),
            ("outputs", ", ".join(plan.outputs)),
            ("image", "none" if plan.image is None else plan.image.mode),
            ("model", _models_in_words(labels.model)),
            ("views", VIEWS_IN_WORDS[labels.tta]),
            ("pixels", _resampling_in_words(plan)),
            ("blocks", f"{blocks} of {labels.block} px, {len(costs.tissue)} with tissue"),
            (
                "tiles",
                f"{costs.tiles} of {labels.tile} px; the network sees {costs.overhead:.2f} times "
                "the pixels it labels",
            ),
            ("tile search", _search_in_words(plan.measured)),
            ("runs on", f"{labels.device} in {labels.precision}"),
            (
                "exactness",
                exactness_in_words(
                    labels.exactness, labels.inexact_because, labels.precision, labels.agreement
                ),
            ),
            ("disk", f"about {size(costs.expected_bytes)}, {size(costs.output_bytes)} at most"),
            ("memory", f"{size(costs.process_bytes)} per process"),
            ("device memory", "" if costs.device_bytes is None else size(costs.device_bytes)),
            ("time", _time_in_words(plan)),
            ("objects", _object_costs_in_words(plan.object_costs)),
            ("signature", plan.signature),
            ("resumes", f"{len(plan.done)} of {blocks} blocks are done" if plan.resumes else ""),
            *(("warning", speak(warning)) for warning in plan.warnings),
        ],
    )


def _time_in_words(plan: Plan) -> str:
    """Return how long what isn't done will take."""
    if len(plan.done) == len(plan.labels.blocks()):
        return "all labels are done"
    if plan.seconds_left is None:
        return "not measured"
    return f"about {duration(plan.seconds_left)}{' more' if plan.done else ''}"


def _object_costs_in_words(costs: ObjectCosts | None) -> str:
    """Return what finding objects will take beside that."""
    if costs is None:
        return ""
    time, disk = duration(costs.seconds), size(costs.expected_bytes)
    return f"about {time} and {disk} more, where all tissue is full of nuclei"


def _search_in_words(measured: WorkerMeasurement) -> str:
    """Return what was tried to choose tile and number type, and how long that took."""
    choice, words = measured.choice, []
    tried = ", ".join(map(str, choice.speeds))
    if choice.source == "given":
        words.append("none, the tile is given")
    elif choice.source == "default":
        words.append("none, since it would take too much of the run")
    elif choice.source == "remembered":
        words.append("none, the tile is remembered from an earlier one")
    elif choice.source == "searched":
        words.append(f"tiles of {tried} px tried in {duration(choice.seconds)}")
    if choice.source != "searched" and choice.seconds:
        words.append(f"the speed measured in {duration(choice.seconds)}")
    if measured.compared_seconds:
        words.append(f"labels compared with float32 in {duration(measured.compared_seconds)}")
    return "; ".join(words)


def _resampling_in_words(plan: Plan) -> str:
    resampling = plan.labels.resampling
    words = f"{pixels(resampling.shape)} from level {resampling.level}"
    if resampling.ratio != (1.0, 1.0):
        words += ", resampled"
    return words if plan.mpp is None else f"{words}, at {micrometres(*plan.mpp)}"


def show_report(report: Report, *, verbose: bool) -> None:
    """Print on stdout how a run ended and what it found; when `verbose`, its parameters too.

    Its warnings were shown when it began.
    """
    computed = report.blocks.done - report.blocks.resumed
    print_facts(
        f"{report.slide}: {report.state}",
        [
            ("written to", f"{report.output} ({groups_in_words(_groups(report))})"),
            ("blocks", blocks_in_words(report.blocks)),
            ("image", "" if report.image is None else blocks_in_words(report.image, labels=False)),
            ("time", _describe_time(report) if computed or report.failures else NOTHING_LEFT),
            ("spent on", waits_in_words(report.waits) if computed else ""),
            (
                "exactness",
                exactness_in_words(
                    report.exactness,
                    report.inexact_because,
                    report.parameters["precision"],
                    report.parameters["agreement"],
                ),
            ),
            *failures_in_words(report.failures),
        ],
    )
    show_classes(report.classes)
    show_objects(report.objects)
    if verbose:
        print_facts("parameters", list(_flatten("", report.parameters)))


def warning_lines(warnings: Sequence[str]) -> list[str]:
    """Return warnings as lines to print below what they are about."""
    return [f"  warning  {speak(warning)}" for warning in warnings]


def _flatten(prefix: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", plain(value)


def show_classes(classes: Sequence[ClassArea]) -> None:
    """Print the area of every class, as a table on stdout."""
    if not any(item.pixels for item in classes):
        return
    print_table(
        ("  class", "area", "share of what was segmented"),
        [(f"  {item.name}", area(item), percent(item.fraction)) for item in classes],
    )


def show_objects(found: Sequence[LabelObjects]) -> None:
    """Print the objects of each label group and class, as facts and a table on stdout."""
    for each in found:
        area = "" if each.area_mm2 is None else f"{each.area_mm2:.4g} mm² looked at"
        parts = f"{each.parts} of {each.parts + each.left} blocks, {each.computed} computed now"
        print_facts(
            f"{each.label}: {count(each.objects, 'object')}{'' if each.finished else ' so far'}",
            [
                ("area", area),
                ("unit", "" if each.unit == "µm" else "pixels of the slide: size not known"),
                ("found in", parts),
                *failures_in_words(each.failures),
            ],
        )
        show_class_objects(each.classes, each.unit)


def show_class_objects(classes: Sequence[ClassObjects], unit: str) -> None:
    """Print how many objects of each class there are, as a table on stdout.

    Args:
        classes: the classes.
        unit: the unit of length of their areas.
    """
    if classes:
        print_table(OBJECT_COLUMNS, [_describe_objects(item, unit) for item in classes])


EDITS_IN_WORDS = {
    "unchanged": "unchanged",
    "reclassified": "reclassified",
    "reshaped": "reshaped",
    "added": "added",
    "deleted": "deleted",
    "absent": "not in the files, kept",
}


def edits_in_words(counts: Mapping[str, int]) -> str:
    """Return what became of objects, by the fields of `EditCounts`."""
    return ", ".join(f"{counts[name]} {words}" for name, words in EDITS_IN_WORDS.items())


def show_edited_classes(classes: Sequence[Mapping[str, Any]], unit: str) -> None:
    """Print how many corrected objects of each class there are, as a table on stdout.

    Args:
        classes: the classes, by the fields of `EditedClass`.
        unit: the unit of length of their areas.
    """
    print_table(
        ("  class", "objects", "mean area"),
        [
            (
                f"  {item['name']}{' (new)' if item['new'] else ''}",
                str(item["objects"]),
                _number(item["mean_area"], f" {unit}²"),
            )
            for item in classes
        ],
    )


def _describe_objects(item: ClassObjects, unit: str) -> tuple[str, ...]:
    return (
        f"  {item.name}",
        str(item.objects),
        _number(item.density_per_mm2),
        _number(item.mean_area, f" {unit}²"),
        item.rule,
        f"{item.dropped_small} small, {item.dropped_large} large",
        str(item.large),
    )


def _number(value: float | None, unit: str = "") -> str:
    return "n/a" if value is None else f"{value:.4g}{unit}"


def area(item: ClassArea) -> str:
    """Return how much a class covers: mm², or pixels where their size is unknown."""
    return f"{item.pixels} px" if item.area_mm2 is None else f"{item.area_mm2:.4f} mm²"


def blocks_in_words(blocks: BlockCounts, *, labels: bool = True) -> str:
    """Return how many blocks there are and how many are done.

    Args:
        blocks: the blocks.
        labels: whether they are blocks of labels; those of an image are never called empty.
    """
    counts = [f"{blocks.done} of {blocks.total} done"]
    if blocks.resumed:
        counts.append(f"{blocks.resumed} by earlier runs")
    if blocks.empty and labels:
        counts.append(f"{blocks.empty} empty")
    if blocks.failed:
        counts.append(f"{blocks.failed} failed")
    return ", ".join(counts)


def waits_in_words(waits: Waits) -> str:
    """Return how long blocks took for each step; blocks overlap, so this is more than the time."""
    return (
        f"reading {duration(waits.read)}, predicting {duration(waits.predict)}, "
        f"waiting for the device {duration(waits.device)}, writing {duration(waits.write)}"
    )


def failures_in_words(failures: Sequence[Failure | PartFailure]) -> list[tuple[str, str]]:
    """Return the first failed blocks with what went wrong, and how many more there are."""
    rows = [(f"block {f.block[0]}.{f.block[1]}", speak(f.error)) for f in failures[:MAX_FAILURES]]
    more = len(failures) - len(rows)
    return [*rows, ("", f"and {more} more")] if more else rows


def _describe_time(report: Report) -> str:
    return (
        f"{duration(report.seconds)} at {report.mpx_per_s:.2f} Mpx/s, "
        f"device {100 * report.device_busy:.0f} % busy "
        f"(after {duration(report.startup_seconds)} of preparation)"
    )


def exactness_in_words(
    exactness: str, because: str, precision: str = "", agreement: float | None = None
) -> str:
    """Return whether tiling can change a label, and why, and what the number type changes."""
    words = f"{exactness} ({speak(because)})" if because else exactness
    if not precision:
        return words
    if agreement is None:
        return f"{words}, in {precision}"
    return f"{words}, in {precision}: {100 * agreement:.2f} % of labels as in float32"


def groups_in_words(groups: Sequence[str]) -> str:
    """Return the label groups of an output."""
    if len(groups) <= 2:
        return ", ".join(f"labels/{group}" for group in groups)
    return f"labels/{groups[0]} … {groups[-1]}, {len(groups)} in all"


def _groups(report: Report) -> Sequence[str]:
    return report.parameters.get("groups") or (report.label,)


def _models_in_words(model: ModelReference) -> str:
    if not model.members:
        return model.name
    return f"the mean of {', '.join(member.name for member in model.members)}"
