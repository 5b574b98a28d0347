"""`wsi-unet model verify`: whether a model is what it says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from wsi_unet_cli.common.options import json_option, trust_option, verbose_option
from wsi_unet_cli.common.outcome import EXIT_FAILED
from wsi_unet_cli.common.output import duration, print_json, print_table

if TYPE_CHECKING:
    from wsi_unet.models.probing.verify import Verification

EPILOG = """\
\b
Examples:
  wsi-unet model verify nuclei-he
  wsi-unet model verify my-model/ --slide slide.svs
  wsi-unet model verify traced/ --trust --json

Exit codes: 0 the model is what it says, 1 it isn't, 2 wrong usage or no model.
"""

_VERDICTS = {True: "holds", False: "WRONG", None: ""}


@click.command(epilog=EPILOG, short_help="Measure whether a model is what it says.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--slide", metavar="SLIDE", help="Try it on this slide's tissue.  [default: made-up tissue]"
)
@trust_option
@json_option
@verbose_option
@click.pass_context
def verify(ctx: click.Context, model: str, slide: str | None, trust: bool, as_json: bool) -> None:
    """Measure the border and exactness of MODEL, and how number types change its labels.

    Its own weights are run on small images, on the CPU: spoilt beyond the declared border, cut in
    two ways (in float64 where that is possible), and tiled in two ways.
    """
    from wsi_unet.models.importing.imported_models import load_or_import_model
    from wsi_unet.models.probing.verify import verify_model as measure
    from wsi_unet.segmentation.sample_pixels import make_tissue_sample, read_tissue_sample

    loaded = load_or_import_model(model, trust=trust)
    pixels = (
        make_tissue_sample if slide is None else partial(read_tissue_sample, slide, loaded.spec)
    )
    found = measure(loaded, pixels)
    if as_json:
        print_json({"path": str(loaded.path), **found.to_json()})
    else:
        _show(found)
    ctx.exit(0 if found.holds else EXIT_FAILED)


def _show(found: Verification) -> None:
    print_table(
        ("measured", "the model says", "found", ""),
        [
            (check.name, check.declared, check.measured, _VERDICTS[check.holds])
            for check in found.checks
        ],
    )
    verdict = "is what it says" if found.holds else "is NOT what it says"
    click.echo(f"{found.name} ({found.exactness}) {verdict}; {duration(found.seconds)}")
