"""The area of every class, from the blocks that are done."""

from __future__ import annotations

from wsi_unet.labels.metadata import Frame
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.segmentation.dispatch.output import OpenOutput, count_label_pixels
from wsi_unet.segmentation.parameters import LabelParameters
from wsi_unet.segmentation.report import ClassArea


def measure_areas(
    output: OpenOutput, labels: LabelParameters, ensemble: Ensemble
) -> tuple[ClassArea, ...]:
    """Return the area of every class over the blocks that are done."""
    frame = Frame.from_downsample(labels.resampling.downsample, labels.slide.mpp)
    counts = count_label_pixels(output.progress(output.labels), labels)
    overlapping = ensemble.spec.multi_label  # a group's background only says "not this class"
    areas = []
    for name, group, pixels in zip(labels.label_groups, ensemble.groups, counts, strict=True):
        predicted = sum(pixels)
        for label in group.classes[1 if overlapping else 0 :]:
            count = pixels[label.value] if pixels else 0
            area = ClassArea(
                value=label.value,
                name=label.name,
                color=label.color,
                pixels=count,
                area_mm2=frame.area_mm2(count),
                fraction=count / predicted if predicted else 0.0,
                group=name,
            )
            areas.append(area)
    return tuple(areas)
