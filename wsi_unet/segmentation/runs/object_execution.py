"""Executing the second stage of a slide's run: finding the objects of its finished labels."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from distributed import Client
from typing_extensions import override

from wsi_unet.objects.intensities.quantities import Measured
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.objects.source import LabelSource
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.report import Report, RunProgress
from wsi_unet.segmentation.runs.object_finding import ObjectFinding
from wsi_unet.storage.locking.lock import OutputLock


class ObjectExecution(ObjectFinding):
    """Finding the objects of a slide, once its labels are finished.

    Args:
        client: the cluster.
        sources: the labels.
        rule: the rules of classes by name.
        lock: on the output, held until `close`.
        limits: how patient to be.
        measure: what is measured on the slide.
        labels: the report of the labels.

    Raises:
        OutputError: it can't be recorded that the objects are being found.
    """

    def __init__(
        self,
        client: Client,
        sources: Sequence[LabelSource],
        rule: ObjectRule,
        lock: OutputLock,
        limits: Limits,
        measure: Collection[Measured] = (),
        *,
        labels: Report,
    ) -> None:
        super().__init__(client, sources, rule, lock, limits, measure)
        self._labels = labels

    @property
    def pixels(self) -> int:
        """Level-0 label pixels that this stage has predicted: none."""
        return 0

    @property
    def has_following(self) -> bool:
        """Whether another stage follows: none does."""
        return False

    def start_following(self) -> None:
        """Return the stage that follows: none."""

    @override
    def measure_progress(self) -> RunProgress:
        return replace(super().measure_progress(), warnings=self._labels.warnings)

    def make_report(self, *, interrupted: bool = False) -> Report:
        """Return the report of the labels, with what was found in them.

        Args:
            interrupted: whether the stage was ended early on purpose.
        """
        objects, state = self.objects, self._labels.state
        if interrupted:
            state = "interrupted"
        elif not all(each.finished for each in objects):
            state = "incomplete"
        seconds = self._labels.seconds + time.perf_counter() - self._started
        return replace(self._labels, state=state, objects=objects, seconds=seconds)
