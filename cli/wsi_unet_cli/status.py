"""`wsi-unet status`: how far a result is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet_cli.endings import EXIT_FAILED, EXIT_OK
from wsi_unet_cli.options import json_option, verbose_option
from wsi_unet_cli.output import print_facts, print_json
from wsi_unet_cli.reports import blocks_in_words, failures_in_words, waits_in_words

if TYPE_CHECKING:
    from wsi_unet import RunStatus

EPILOG = """\
\b
Examples:
  wsi-unet status slide.ome.zarr
  wsi-unet status slide.ome.zarr --verify

Exit code 0 means that everything is finished, 1 that something is left to do.
"""


@click.command(epilog=EPILOG, short_help="Show how far a result is; check its files.")
@click.argument("result", metavar="OUT")
@click.option(
    "--verify",
    is_flag=True,
    help="Read everything back and compare checksums; damaged blocks are forgotten, so that the "
    "next run computes them again.",
)
@json_option
@verbose_option
@click.pass_context
def status(ctx: click.Context, result: str, verify: bool, as_json: bool) -> None:
    """Show what is done, failed and left of each label group in the result OUT."""
    runs = wsi_unet.run_status(result, verify=verify)
    if as_json:
        print_json({"output": result, "runs": [run.to_json() for run in runs]})
    else:
        for run in runs:
            _show(run)
    ctx.exit(EXIT_OK if all(run.state == "finished" for run in runs) else EXIT_FAILED)


def _show(run: RunStatus) -> None:
    blocks = blocks_in_words(run.blocks, labels=run.model is not None)
    damaged = ", ".join(f"{row}.{column}" for row, column in run.damaged)
    print_facts(
        f"{run.label}: {run.state}",
        [
            ("slide", run.slide),
            ("model", run.model or ""),
            ("blocks", f"{blocks}, {run.blocks.left} left"),
            ("damaged", damaged),
            ("speed", f"{run.mpx_per_s:.2f} Mpx/s per thread" if run.mpx_per_s else ""),
            ("spent on", waits_in_words(run.waits) if run.seconds else ""),
            *failures_in_words(run.failures),
        ],
    )
