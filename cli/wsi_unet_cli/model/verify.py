"""`wsi-unet model verify`: measure whether a model is what its spec claims."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from wsi_unet_cli.common.options import json_option, trust_option, verbose_option
from wsi_unet_cli.common.outcome import EXIT_FAILED
from wsi_unet_cli.common.output import duration, print_json, print_table, say

if TYPE_CHECKING:
    from wsi_unet.models.probing.verify import Verification

EPILOG = """\
\b
Examples:
  wsi-unet model verify nuclei-he
  wsi-unet model verify my-model/ --slide slide.svs
  wsi-unet model verify traced/ --trust --json

Exit codes: 0 the model is as declared, 1 it isn't, 2 wrong usage or no model.
"""

_VERDICTS = {True: "holds", False: "WRONG", None: ""}


@click.command(epilog=EPILOG, short_help="Measure whether a model is as declared.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--slide", metavar="SLIDE", help="Use tissue of this slide.  [default: synthetic tissue]"
)
@trust_option
@json_option
@verbose_option
@click.pass_context
def verify(ctx: click.Context, model: str, slide: str | None, trust: bool, as_json: bool) -> None:
    """Measure the border and exactness of MODEL, and how number types change its labels.

    The network is run on small images, on the CPU: with noise beyond the declared border, cut
    in two ways (in float64 if possible), and tiled in two ways.
    """
    from wsi_unet.models.importing.imported_models import load_or_import_model
    from wsi_unet.models.probing.verify import verify_model as measure
    from wsi_unet.segmentation.sample_pixels import make_tissue_sample, read_tissue_sample

    loaded = load_or_import_model(model, trust=trust)
    pixels = (
        make_tissue_sample if slide is None else partial(read_tissue_sample, slide, loaded.spec)
    )
    verification = measure(loaded, pixels)
    if as_json:
        print_json({"path": str(loaded.path), **verification.to_json()})
    else:
        _show(verification)
    ctx.exit(0 if verification.holds else EXIT_FAILED)


def _show(verification: Verification) -> None:
    print_table(
        ("property", "the model says", "measured", ""),
        [
            (check.name, check.declared, check.measured, _VERDICTS[check.holds])
            for check in verification.checks
        ],
    )
    verdict = "is as declared" if verification.holds else "is NOT as declared"
    name, time = f"{verification.name} ({verification.exactness})", duration(verification.seconds)
    say(f"{name} {verdict}; {time}")
