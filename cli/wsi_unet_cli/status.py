"""`wsi-unet status`: how far a result is, or every result in a folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

import wsi_unet
from wsi_unet.wording import count
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.outcome import EXIT_FAILED, EXIT_OK
from wsi_unet_cli.common.output import duration, print_facts, print_json, say, write_json
from wsi_unet_cli.common.reports import (
    blocks_in_words,
    edits_in_words,
    exactness_in_words,
    failures_in_words,
    groups_in_words,
    show_class_objects,
    show_edited_classes,
    waits_in_words,
)
from wsi_unet_cli.common.text import speak, speak_document

if TYPE_CHECKING:
    from wsi_unet import RunStatus
    from wsi_unet.cohorts.status import OutputStatus
    from wsi_unet.corrections.status import EditStatus
    from wsi_unet.objects.status import ObjectStatus
    from wsi_unet.segmentation.status import Writer

EPILOG = """\
\b
Examples:
  wsi-unet status slide.ome.zarr
  wsi-unet status slide.ome.zarr --verify --forget
  wsi-unet status results/

Exit codes: 0 everything is finished, 1 something is left to do, 2 wrong usage or no result.
"""


@click.command(epilog=EPILOG, short_help="Show how far a result is; check its files.")
@click.argument("result", metavar="OUT")
@click.option(
    "--verify",
    is_flag=True,
    help="Read everything back and compare checksums. Nothing is changed.",
)
@click.option(
    "--forget",
    is_flag=True,
    help="With --verify: mark damaged blocks as not done, so that the next run computes them "
    "again.",
)
@json_option
@verbose_option
@click.pass_context
def status(ctx: click.Context, result: str, verify: bool, forget: bool, as_json: bool) -> None:
    """Show what is done, failed and left in each label group of the result OUT.

    If OUT is a folder with the results of many slides, show a line for each, and the totals. The
    process that is writing there is shown, too.
    """
    from wsi_unet.cohorts.status import is_cohort

    if forget and not verify:
        raise click.UsageError("--forget needs --verify, which finds the damage")
    show = _show_cohort if is_cohort(result) else _show_result
    with interruptible():  # so that --forget unlocks what it has locked
        finished = show(result, verify=verify, forget=forget, as_json=as_json)
    ctx.exit(EXIT_OK if finished else EXIT_FAILED)


def _show_result(result: str, *, verify: bool, forget: bool, as_json: bool) -> bool:
    """Show one result; return whether it is finished."""
    from wsi_unet.segmentation.status import read_writer

    runs = wsi_unet.run_status(result, verify=verify, forget=forget)
    writer = read_writer(result)
    if as_json:
        print_json(
            {
                "output": result,
                "runs": [run.to_json() for run in runs],
                "writer": None if writer is None else vars(writer),
            }
        )
    else:
        for run in runs:
            _show(run, forgotten=forget)
        _show_writer(writer)
    states: list[str] = [run.state for run in runs]
    states += [found.state for run in runs for found in run.objects]
    states += [found.state for run in runs for found in run.edited]
    return {*states} == {"finished"}


def _show(run: RunStatus, *, forgotten: bool) -> None:
    blocks = blocks_in_words(run.blocks, labels=run.model is not None)
    damaged = ", ".join(f"{row}.{column}" for row, column in run.damaged)
    if damaged:
        cure = "" if forgotten else "status OUT --verify --forget, then "
        damaged = f"{damaged} ({cure}the same segment command computes them again)"
    speed = [f"{run.mpx_per_s:.2f} Mpx/s per thread"] if run.mpx_per_s else []
    if run.blocks_per_s:
        speed.append(f"{run.blocks_per_s:.2f} blocks/s")
    if run.device_busy:
        speed.append(f"device {100 * run.device_busy:.0f} % busy")
    print_facts(
        f"{run.label}: {run.state}",
        [
            ("slide", run.slide),
            ("model", run.model or ""),
            ("labels", groups_in_words(run.groups) if len(run.groups) > 1 else ""),
            ("exactness", exactness_in_words(run.exactness or "", run.inexact_because)),
            ("blocks", f"{blocks}, {run.blocks.left} left"),
            ("damaged", damaged),
            ("missing", run.missing and f"{run.missing}; the same segment command restores it"),
            ("speed", ", ".join(speed)),
            ("spent on", waits_in_words(run.waits) if run.seconds else ""),
            *failures_in_words(run.failures),
        ],
    )
    for objects in run.objects:
        _show_objects(objects)
    for edited in run.edited:
        _show_edited(edited)


def _show_objects(found: ObjectStatus) -> None:
    cure = "find them again with the same objects command"
    damaged = f"{count(found.damaged, 'block')} ({cure})" if found.damaged else ""
    print_facts(
        f"objects of {found.label}: {found.state}",
        [
            ("blocks", f"{found.done} of {found.blocks} done"),
            ("damaged", damaged),
            ("outdated", f"the labels have changed since; {cure}" * (found.state == "outdated")),
            *failures_in_words(found.failures),
        ],
    )
    show_class_objects(found.classes, found.unit)


def _show_edited(edited: EditStatus) -> None:
    cures = {
        "outdated": "the objects have changed since; correct those and import them again",
        "damaged": "import the same files again",
    }
    print_facts(
        f"corrected objects of {edited.label}: {edited.state}",
        [
            ("imported", f"{edited.imported} from {', '.join(edited.files)}"),
            ("objects", edits_in_words(edited.counts)),
            (edited.state, cures.get(edited.state, "")),
        ],
    )
    show_edited_classes(edited.classes, edited.unit)


def _show_writer(writer: Writer | None) -> None:
    if writer is not None:
        say(_writer_in_words(writer))


def _writer_in_words(writer: Writer) -> str:
    silent = f"last heartbeat {duration(writer.silent_seconds)} ago"
    if writer.alive:
        return f"being written by {writer.who} since {writer.since} ({silent})"
    return f"was being written by {writer.who}, which is gone ({silent})"


def _show_cohort(folder: str, *, verify: bool, forget: bool, as_json: bool) -> bool:
    """Show every result of a folder as soon as it is read; return whether all are finished."""
    from wsi_unet.cohorts.status import read_cohort_header, read_cohort_status
    from wsi_unet.segmentation.status import read_writer

    header, writer = read_cohort_header(folder), read_writer(folder)
    totals = _Totals()
    separator = ""
    if as_json:
        head = {
            "output": folder,
            "cohort": header,
            "writer": None if writer is None else vars(writer),
        }
        write_json(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "outputs": [')
    for output in read_cohort_status(folder, verify=verify, forget=forget):
        totals.add(output)
        if as_json:
            document = json.dumps(speak_document(output.to_json()), allow_nan=False)
            write_json(separator + document, nl=False)
            separator = ",\n"
        else:
            say(_line(output))
    if as_json:
        write_json(f'\n ],\n "totals": {json.dumps(totals.to_json())}\n}}')
    else:
        totals.show(folder, header)
        _show_writer(writer)
    return totals.finished


class _Totals:
    """The results of a folder, added up."""

    def __init__(self) -> None:
        from wsi_unet.segmentation.report import Waits

        self.states: Counter[str] = Counter()
        self.blocks: Counter[str] = Counter()
        self.waits = Waits()

    @property
    def finished(self) -> bool:
        """Whether every result is finished."""
        return self.states.keys() == {"finished"}

    def add(self, output: OutputStatus) -> None:
        self.states[output.state] += 1
        self.waits += output.waits
        if output.blocks is not None:
            for name in ("total", "done", "failed"):
                self.blocks[name] += getattr(output.blocks, name)

    def to_json(self) -> dict[str, Any]:
        return {
            "slides": dict(self.states),
            "blocks": dict(self.blocks),
            "waits": vars(self.waits),
        }

    def show(self, folder: str, header: dict[str, Any] | None) -> None:
        """Print the totals, and the speed if a report has it."""
        states = [f"{number} {state}" for state, number in self.states.items()]
        progress = (header or {}).get("progress") or {}
        speed = ""
        if header is not None and progress.get("blocks_done"):
            speed = (
                f"{progress['mpx_per_s']:.2f} Mpx/s, {progress['blocks_per_s']:.2f} blocks/s, "
                f"device {100 * progress['device_busy']:.0f} % busy (at {header['updated']})"
            )
        print_facts(
            f"{folder}: {count(self.states.total(), 'slide')}",
            [
                ("slides", ", ".join(states)),
                (
                    "blocks",
                    f"{self.blocks['done']} of {self.blocks['total']} done in started slides, "
                    f"{self.blocks['failed']} failed",
                ),
                ("speed", speed),
                ("spent on", waits_in_words(self.waits) if any(vars(self.waits).values()) else ""),
            ],
        )


def _line(output: OutputStatus) -> str:
    """Return how far a result is, in one line."""
    words: list[str] = [output.state]
    if output.blocks is not None:
        words.append(f"{output.blocks.done} of {count(output.blocks.total, 'block')}")
    if output.failures:
        words.append(f"{output.failures} failed")
    if output.mpx_per_s:
        words.append(f"{output.mpx_per_s:.2f} Mpx/s")
    if output.inexact_because:
        words.append(exactness_in_words("approximate", output.inexact_because))
    if output.error is not None and output.state != "finished":
        words.append(speak(output.error))
    if output.writer is not None:
        words.append(_writer_in_words(output.writer))
    name = PurePath(output.output or output.slide).name
    return f"{name}: {', '.join(words)}"
