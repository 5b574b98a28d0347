"""The blocks of a run that are left to do, and the order in which they are done."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.progress import Progress
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters
from wsi_unet.segmentation.planning.plan import Plan
from wsi_unet.segmentation.runs.output import OpenOutput, reopen
from wsi_unet.segmentation.runs.tally import Tally
from wsi_unet.segmentation.worker.task import Run, Task


def resume_run(
    output: OpenOutput,
    arrays: Mapping[Run, LabelParameters | ImageParameters],
    tallies: Mapping[Run, Tally],
    deadline: float,
) -> Iterator[Task]:
    """Count the blocks that earlier runs have done, and return tasks for all others.

    A block that is marked done but whose shards are missing or cut short is done again; so is one
    of which the regions now cover another part. The
    image's blocks are evenly mixed with the labels': they don't use the device, so they hide
    behind those that do.

    Args:
        output: the output, laid out; its completion is undone where blocks are left.
        arrays: the runs that fill it, with their parameters.
        tallies: count the blocks that are done.
        deadline: seconds after which a block counts as hung.
    """
    queues = [
        _resume_array(output, run, parameters, tallies[run], deadline)
        for run, parameters in arrays.items()
    ]
    ranked = (
        [((rank + 1) / len(queue), task) for rank, task in enumerate(queue)] for queue in queues
    )
    return (task for _, task in heapq.merge(*ranked, key=lambda pair: pair[0]))


def find_done(progress: Progress, plan: Plan) -> frozenset[BlockIndex]:
    """Return the blocks of labels that are marked done and stored; nothing is changed."""
    labels = plan.labels
    blocks = {*labels.blocks()}
    found = progress.read_markers(labels.signature())
    markers = (m for m in found if m.block in blocks and labels.covers_block(m))
    return frozenset(marker.block for marker, sound in progress.check_shards(markers) if sound)


def _resume_array(
    output: OpenOutput,
    run: Run,
    parameters: LabelParameters | ImageParameters,
    tally: Tally,
    deadline: float,
) -> list[Task]:
    progress = output.open_progress(run)
    left = dict.fromkeys(parameters.blocks())
    found = progress.read_markers(run.signature)
    markers = (m for m in found if m.block in left and parameters.covers_block(m))
    for marker, sound in progress.check_shards(markers):
        if sound:
            tally.count_resumed(marker)
            del left[marker.block]
        else:
            progress.forget_block(marker.block)
    if left:
        reopen(output, run)
    return [Task(run, index, deadline=deadline) for index in left]
