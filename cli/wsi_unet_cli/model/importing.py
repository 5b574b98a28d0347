"""`wsi-unet model import`: make a model from a checkpoint or a program."""

from __future__ import annotations

import re
from typing import Any

import click

from wsi_unet_cli.common.options import json_option, trust_option, verbose_option
from wsi_unet_cli.common.output import print_json
from wsi_unet_cli.model.facts import model_document, show_model

EPILOG = """\
\b
Examples:
  wsi-unet model import unet.pth
  wsi-unet model import unet.pth -o nuclei/ --classes background,nuclei --mpp 0.5
  wsi-unet model import weights.pt --padding valid --scale imagenet
  wsi-unet model import unet.onnx --classes background,nuclei
  wsi-unet model import brain.pt --head sigmoid --classes tumour --thresholds 0.4
  wsi-unet model import run.ckpt --entry ema.model --norm group:8
"""


def parse_names(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Parse comma-separated names."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name; write A,B,C.")
    return names


def parse_numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Parse comma-separated numbers from 0 to 1."""
    if value is None:
        return None
    if not re.fullmatch(r"(0?\.[0-9]+)(,0?\.[0-9]+)*", value):
        raise click.BadParameter(f"{value!r} isn't a list of numbers from 0 to 1, like 0.5,0.3.")
    return tuple(map(float, value.split(",")))


@click.command("import", epilog=EPILOG, short_help="Make a model of a checkpoint or program.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option(
    "-o",
    "--output",
    metavar="MODEL",
    help="Folder to write the model to.  [default: ./<the model's name>]",
)
@click.option(
    "--family",
    default="auto",
    show_default=True,
    metavar="FAMILY",
    help="Family of the network, if the names of its weights don't show it; see "
    "docs/guides/import-a-model.md.",
)
@click.option(
    "--entry",
    metavar="A.B",
    help="Where in the file the network lies, if there are several: the keys that lead there; . is "
    "the whole file.",
)
@click.option(
    "--padding",
    type=click.Choice(["valid", "same"]),
    help="Padding of its convolutions: none (valid), or zeros (same).",
)
@click.option(
    "--norm",
    metavar="none|instance|batch|group:G",
    help="Normalisation, where it has no running statistics: instance norm, batch norm without "
    "them, or group norm of G groups.",
)
@click.option(
    "--activation",
    metavar="relu|leaky-relu[=SLOPE]",
    help="Activation, if it isn't the family's usual one; SLOPE is the negative slope.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(min=0, min_open=True),
    metavar="F",
    help="Pixel size that it was trained at, in µm.  [default: any]",
)
@click.option(
    "--classes",
    callback=parse_names,
    metavar="A,B,…",
    help="Names of its outputs, in order.  [default: class-0,class-1,…]",
)
@click.option(
    "--background",
    metavar="NAME|none",
    help="Which class is background, stored as 0.  [default: the first; none with sigmoid]",
)
@click.option(
    "--scale",
    metavar="SCALE",
    help="How intensities are normalised: 0..1, -1..1, 0..255, imagenet, slide (zero mean and unit "
    "variance over each slide), or MEAN,…/STD,… of intensities from 0 to 1.  [default: 0..1]",
)
@click.option(
    "--channels",
    type=click.Choice(["rgb", "bgr", "gray"]),
    help="Order of its input's channels.  [default: rgb, or gray if there is just one]",
)
@click.option(
    "--head",
    type=click.Choice(["softmax", "sigmoid"]),
    help="One class per pixel (softmax), or each class by itself (sigmoid).  [default: as the "
    "family has it]",
)
@click.option(
    "--thresholds",
    callback=parse_numbers,
    metavar="P,…",
    help="Thresholds of a sigmoid head, one for each class.  [default: 0.5]",
)
@click.option(
    "--window",
    type=click.IntRange(min=16),
    metavar="N",
    help="Run it on windows of N px only, preferably the size it was trained on.  [default: any; "
    "512 for networks whose result depends on the size]",
)
@click.option(
    "--interpolation",
    type=click.Choice(["fixed-tile", "global"]),
    help="Upsampling of networks that align corners: as in windows of one size (fixed-tile), or as "
    "over the whole slide, which is exact (global).  [default: fixed-tile]",
)
@click.option("--license", default="", metavar="SPDX", help="Licence of the weights.")
@click.option("--name", metavar="NAME", help="Name of the model.  [default: the file's name]")
@trust_option
@click.option("--overwrite", is_flag=True, help="Replace an existing model.")
@json_option
@verbose_option
def import_(
    checkpoint: str, output: str | None, trust: bool, overwrite: bool, as_json: bool, **hints: Any
) -> None:
    """Make a model from CHECKPOINT, a file saved by PyTorch or safetensors, or from a program.

    Depth, widths, classes and upsampling are found from the weights; if something can't be, an
    error names the option that gives it. What is assumed, and what is left out of the file, is
    shown and kept with the model. No code in the file is run; a file that holds more than tensors
    and plain data is refused.

    A program is an ONNX file or, with --trust, a TorchScript or torch.export file. Its border and
    period are measured, which takes about ten runs on images of a few hundred pixels.
    """
    from wsi_unet.models.importing.checkpoints import import_model
    from wsi_unet.models.importing.hints import ImportHints

    model = import_model(checkpoint, output, ImportHints(**hints), trust=trust, overwrite=overwrite)
    if as_json:
        print_json({"path": str(model.path), "sha256": model.sha256, **model_document(model.spec)})
        return
    show_model(model.spec, title=str(model.path))
