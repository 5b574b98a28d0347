"""`wsi-unet models`: list models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

import wsi_unet
from wsi_unet.errors import ModelError
from wsi_unet.wording import plain
from wsi_unet_cli.common.failures import VERBOSE
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.output import micrometres, print_facts, print_json, print_table, size

if TYPE_CHECKING:
    from pydantic import JsonValue

    from wsi_unet.models import ModelSpec

EPILOG = """\
\b
Examples:
  wsi-unet models
  wsi-unet models my-model/ -v
"""


@dataclass(frozen=True)
class Entry:
    """A model in the list.

    Attributes:
        path: file or folder of the model.
        spec: its spec.
        bytes: size of its files.
        bundled: whether it comes with the package.
    """

    path: Path
    spec: ModelSpec
    bytes: int
    bundled: bool

    @property
    def dice(self) -> float | None:
        """The Dice coefficient of its card; on held-out data if the card has that."""
        metrics = self.spec.metrics
        held_out = metrics.get("held_out", metrics)
        value = held_out.get("dice") if isinstance(held_out, dict) else None
        return float(value) if isinstance(value, int | float) else None

    def to_json(self) -> dict[str, object]:
        """Return the entry as a JSON document."""
        return {
            "path": str(self.path),
            "bundled": self.bundled,
            "bytes": self.bytes,
            **self.spec.model_dump(mode="json"),
        }


@click.command(epilog=EPILOG, short_help="List bundled and given models.")
@click.argument("paths", metavar="[MODEL]...", nargs=-1)
@json_option
@verbose_option
@click.pass_context
def models(ctx: click.Context, paths: tuple[str, ...], as_json: bool) -> None:
    """List the bundled models, or each MODEL given by name or path.

    With -v, show everything that a model's card says.
    """
    bundled = wsi_unet.bundled_models()
    entries = [_entry(source, bundled) for source in (paths or bundled)]
    if as_json:
        print_json({"models": [entry.to_json() for entry in entries]})
    elif ctx.meta[VERBOSE]:
        for entry in entries:
            _show_card(entry)
    else:
        _show_list(entries)


def _entry(source: str, bundled: dict[str, Path]) -> Entry:
    from wsi_unet.models import read_spec
    from wsi_unet.models.importing.checkpoint_file import is_checkpoint

    if source not in bundled and is_checkpoint(source):
        raise ModelError(
            f"{source} isn't a model; if it is a checkpoint or a program, run "
            f"wsi-unet model inspect {source}"
        )
    path = bundled.get(source, Path(source))
    spec = read_spec(path)
    files = path.iterdir() if path.is_dir() else [path]
    total = sum(file.stat().st_size for file in files if file.is_file())
    return Entry(path, spec, total, bundled=source in bundled)


def _show_list(entries: list[Entry]) -> None:
    print_table(
        ("name", "classes", "pixel size", "Dice", "licence", "size"),
        [
            (
                entry.spec.name,
                ", ".join(item.name for item in entry.spec.classes),
                "any" if entry.spec.mpp is None else micrometres(entry.spec.mpp),
                "" if entry.dice is None else f"{entry.dice:.3f}",
                entry.spec.license or "not stated",
                size(entry.bytes),
            )
            for entry in entries
        ],
    )


def _show_card(entry: Entry) -> None:
    spec = entry.spec
    print_facts(
        spec.name,
        [
            ("description", spec.description),
            ("classes", ", ".join(item.name for item in spec.classes)),
            ("background", spec.background or ""),
            ("pixel size", "any" if spec.mpp is None else micrometres(spec.mpp)),
            ("architecture", plain({k: v for k, v in spec.architecture if v is not None})),
            ("training data", spec.training_data),
            ("trained", _describe({k: v for k, v in spec.training.items() if k != "recipe"})),
            *((name.replace("_", " "), _describe(value)) for name, value in spec.metrics.items()),
            ("licence", spec.license or "not stated"),
            ("size", size(entry.bytes)),
            ("path", str(entry.path)),
        ],
    )


def _describe(value: JsonValue) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{name.replace('_', ' ')} " + (f"({words})" if isinstance(item, dict) else words)
        for name, item in value.items()
        for words in [_describe(item)]
    )
