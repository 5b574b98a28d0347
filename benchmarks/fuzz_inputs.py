"""What the fuzzer mutates: one small good input of every kind, and the commands that read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT
from wsi_unet.exports.formats import FORMATS

SIDE = 96
"""Side of the images, px: three tiles of a TIFF."""

LARGE_SIDE = 560
"""Side of the slide of a result, px: two blocks a side."""

OPTIONS = (
    "--block", "512", "--tile", "96", "--precision", "float32", "--device", "cpu",
    "--tissue", "none", "--image", "overview",
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """A kind of input.

    Attributes:
        name: name of the file or folder that is mutated.
        commands: words after `wsi-unet`; each case runs one of them. `{it}` is the mutated input,
            `{here}` the folder of good inputs, `{out}` a place for output.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]


SLIDE_COMMANDS = (
    ("info", "-v", "{it}"),
    ("info", "{it}", "--json"),
    ("info", "{it}"),
    ("segment", "{it}", "-m", "{here}/model", "-o", "{out}", *OPTIONS),
)
MASK_COMMANDS = (
    ("segment", "{here}/slide.tif", "-m", "{here}/model", "-o", "{out}", *OPTIONS[:8],
     "--tissue", "{it}"),
)  # fmt: skip
TRUTH_COMMANDS = (
    ("evaluate", "{here}/labels.png", "{it}"),
    ("evaluate", "{it}", "{here}/labels.png"),
)
ANNOTATION_COMMANDS = (
    ("segment", "{here}/slide.tif", "-m", "{here}/model", "-o", "{out}", *OPTIONS[:8],
     "--tissue", "{it}"),
    ("evaluate", "{here}/labels.png", "{it}", "--classes", "foreground=1"),
    ("evaluate", "{here}/labels.png", "{here}/labels.png", "--within", "{it}"),
)  # fmt: skip
MODEL_COMMANDS = (
    ("model", "inspect", "{it}"),
    ("segment", "{here}/slide.tif", "-m", "{it}", "-o", "{out}", *OPTIONS),
)
STORE_COMMANDS = (
    ("status", "{it}"),
    ("status", "{it}", "--verify"),
    ("overlay", "{it}", "-o", "{out}.png"),
    ("evaluate", "{it}", "{here}/large-labels.png", "--classes", "foreground=1"),
    ("segment", "{here}/large.tif", "-m", "{here}/model", "-o", "{it}", *OPTIONS),
    ("segment", "{here}/large.tif", "-m", "{here}/model", "-o", "{it}", "--overwrite", *OPTIONS),
)
_EXPORTED = {"png": ("--class", "foreground"), "qupath": ("--as", "detection")}
"""Options that exports need."""

OBJECT_COMMANDS = (
    ("objects", "{it}"),
    ("objects", "{it}", "--split", "distance:1"),
    ("status", "{it}", "--verify"),
    ("measure", "{it}", "--regions", "{here}/outlines.geojson"),
    ("overlay", "{it}", "-o", "{out}.png"),
    (
        *("segment", "{here}/large.tif", "-m", "{here}/model", "-o", "{it}"),
        *("--outputs", "labels,objects", *OPTIONS),
    ),
)

EXPORT_COMMANDS = tuple(
    ("export", "{it}", "--to", name, "--output", f"{{out}}{facts.suffix}", *_EXPORTED.get(name, ()))
    for name, facts in FORMATS.items()
)
REVIEW_COMMANDS = (
    ("import-annotations", "{it}/edited.geojson.gz", "{it}/slide.ome.zarr", "--complete"),
    ("measure", "{it}/slide.ome.zarr", "--regions", "{here}/outlines.geojson", "--edited"),
    ("status", "{it}/slide.ome.zarr", "--verify"),
)

KINDS = {
    "tiff": Input("slide.tif", SLIDE_COMMANDS),
    "jpeg-tiff": Input("jpeg.tif", SLIDE_COMMANDS),
    "strips": Input("strips.tif", SLIDE_COMMANDS),
    "ome-tiff": Input("slide.ome.tif", SLIDE_COMMANDS),
    "bigtiff": Input("big.tif", SLIDE_COMMANDS),
    "aperio": Input("aperio.svs", SLIDE_COMMANDS),
    "png": Input("slide.png", SLIDE_COMMANDS),
    "jpeg": Input("slide.jpg", SLIDE_COMMANDS),
    "zarr": Input("slide.zarr", SLIDE_COMMANDS),
    "zarr-v2": Input("slide2.zarr", SLIDE_COMMANDS),
    "mask": Input("mask.png", MASK_COMMANDS),
    "tiff-mask": Input("mask.tif", MASK_COMMANDS),
    "label-image": Input("labels.png", TRUTH_COMMANDS),
    "geojson": Input("outlines.geojson", ANNOTATION_COMMANDS),
    "asap": Input("outlines.xml", ANNOTATION_COMMANDS),
    "manifest": Input(
        "cohort.csv", (("segment", "{it}", "-m", "{here}/model", "-o", "{out}", *OPTIONS),)
    ),
    "recipe": Input(
        "recipe.toml", (("train", "{it}", "--data", "{here}", "-o", "{out}", "--check"),)
    ),
    "model": Input("model", MODEL_COMMANDS),
    "checkpoint": Input(
        "weights.pth",
        (
            (
                "model",
                "import",
                "{it}",
                "-o",
                "{out}",
                "--classes",
                "a,b",
                "--name",
                "fuzzed",
                "--padding",
                "valid",
            ),
        ),
    ),
    "store": Input("result.ome.zarr", STORE_COMMANDS),
    "objects": Input("objects.ome.zarr", OBJECT_COMMANDS),
    "exported": Input("exported.ome.zarr", EXPORT_COMMANDS),
    "review": Input("review", REVIEW_COMMANDS),
}
"""Every kind of input by its name."""


def write_inputs(folder: Path) -> None:
    """Write a good input of every kind."""
    writers: Sequence[Callable[[Path], None]] = (
        _write_images, _write_tiffs, _write_zarrs, _write_annotations, _write_models, _write_texts,
        _write_result,
    )  # fmt: skip
    for write in writers:
        write(folder)


def _pixels(side: int = SIDE) -> NDArray[np.uint8]:
    random = np.random.default_rng(1)
    smooth = random.integers(40, 250, (side // 8, side // 8, 3), np.uint8)
    return np.asarray(np.kron(smooth, np.ones((8, 8, 1), np.uint8)))


def _labels(side: int = SIDE) -> NDArray[np.uint8]:
    return np.asarray((_pixels(side)[..., 0] > 140).astype(np.uint8))


def _write_images(folder: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 1  # upright
    Image.fromarray(_pixels()).save(folder / "slide.png")
    Image.fromarray(_pixels()).save(folder / "slide.jpg", quality=90, exif=exif)
    Image.fromarray(_labels()).save(folder / "labels.png")
    Image.fromarray(_labels(LARGE_SIDE)).save(folder / "large-labels.png")
    Image.fromarray(_labels()[::4, ::4] * 255).save(folder / "mask.png")


def _write_tiffs(folder: Path) -> None:
    import tifffile

    image = _pixels()
    tiles: dict[str, Any] = {"photometric": "rgb", "tile": (32, 32)}
    tifffile.imwrite(folder / "slide.tif", image, compression="zlib", predictor=True, **tiles)
    tifffile.imwrite(folder / "large.tif", _pixels(LARGE_SIDE), compression="zlib", **tiles)
    tifffile.imwrite(folder / "jpeg.tif", image, compression="jpeg", **tiles)
    tifffile.imwrite(folder / "strips.tif", image, photometric="rgb", rowsperstrip=16)
    tifffile.imwrite(folder / "mask.tif", _labels(), compression="zlib")
    with tifffile.TiffWriter(folder / "big.tif", bigtiff=True) as file:
        for step in (1, 2):
            file.write(image[::step, ::step], subfiletype=step - 1, compression="lzw", **tiles)
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(folder / "slide.ome.tif", ome=True) as file:
        file.write(image, subifds=1, metadata={"axes": "YXS", **sizes}, compression="zlib", **tiles)
        file.write(image[::2, ::2], subfiletype=1, compression="zlib", **tiles)
    with tifffile.TiffWriter(folder / "aperio.svs") as file:
        said = f"Aperio Image Library v11\n{SIDE}x{SIDE} |AppMag = 20|MPP = 0.4990"
        file.write(image, description=said, metadata=None, compression="jpeg", **tiles)


def _write_zarrs(folder: Path) -> None:
    import zarr

    versions: dict[str, Literal[2, 3]] = {"slide.zarr": 3, "slide2.zarr": 2}
    for name, version in versions.items():
        group = zarr.open_group(folder / name, mode="w", zarr_format=version)
        datasets = []
        for level in range(2):
            data = np.ascontiguousarray(_pixels()[:: level + 1, :: level + 1].transpose(2, 0, 1))
            array = group.create_array(str(level), shape=data.shape, chunks=(3, 32, 32), dtype="u1")
            array[:] = data
            scale = [1.0, 0.5 * (level + 1), 0.5 * (level + 1)]
            transformations = [{"type": "scale", "scale": scale}]
            datasets.append({"path": str(level), "coordinateTransformations": transformations})
        space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
        axes = [{"name": "c", "type": "channel"}, *space]
        multiscales: Any = [{"version": "0.4", "name": "it", "axes": axes, "datasets": datasets}]
        if version == 3:
            group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
        else:
            group.attrs["multiscales"] = multiscales


def _write_annotations(folder: Path) -> None:
    rings = [[[8, 8], [60, 8], [60, 50], [8, 50], [8, 8]], [[20, 60], [90, 70], [40, 90], [20, 60]]]
    features = [
        {
            "type": "Feature",
            "properties": {"classification": {"name": "foreground", "color": [200, 0, 0]}},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        for ring in rings
    ]
    document = {"type": "FeatureCollection", "features": features}
    (folder / "outlines.geojson").write_text(json.dumps(document))
    lines = ["<?xml version='1.0'?>", "<ASAP_Annotations><Annotations>"]
    for number, ring in enumerate(rings):
        lines.append(f"<Annotation Name='a{number}' Type='Polygon' PartOfGroup='foreground'>")
        corners = [f"<Coordinate Order='{i}' X='{x}' Y='{y}'/>" for i, (x, y) in enumerate(ring)]
        lines += ["<Coordinates>", *corners, "</Coordinates></Annotation>"]
    lines += ["</Annotations><AnnotationGroups>", "<Group Name='foreground' Color='#ff0000'/>"]
    lines += ["</AnnotationGroups></ASAP_Annotations>"]
    (folder / "outlines.xml").write_text("\n".join(lines))


def _write_models(folder: Path) -> None:
    import torch

    from benchmarks.networks import make_balanced_network, write_network
    from wsi_unet.models import UNetConfig

    shape = UNetConfig(depth=1, base_width=2)
    write_network(folder / "model", shape)
    torch.save(make_balanced_network(shape, seed=1).state_dict(), folder / "weights.pth")


def _write_texts(folder: Path) -> None:
    slides = ("slide.tif,0.5,P1", "strips.tif,,P2", "jpeg.tif,0.25,P3")
    rows = ["slide,mpp,patient", *(f"../../good/{slide}" for slide in slides)]
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    for part in ("images", "instances"):
        (folder / "nuclei" / part).mkdir(parents=True)
        for path in sorted((ROOT / "tests/data/nuclei_he" / part).glob("*.png"))[:3]:
            shutil.copy(path, folder / "nuclei" / part)
    recipe = (ROOT / "examples/nuclei.toml").read_text().replace("nuclei_he/", "nuclei/")
    (folder / "recipe.toml").write_text(recipe)


def _write_result(folder: Path) -> None:
    import wsi_unet

    for name, mpp in (("result", None), ("exported", 0.5)):
        wsi_unet.segment(
            folder / "large.tif", folder / f"{name}.ome.zarr", folder / "model", block=512, tile=96,
            precision="float32", device="cpu", tissue="none", image="overview", mpp=mpp,
        )  # fmt: skip
    shutil.copytree(folder / "result.ome.zarr", folder / "objects.ome.zarr")
    for name in ("objects", "exported"):
        wsi_unet.find_objects(folder / f"{name}.ome.zarr")
    _write_review(folder / "review", folder / "exported.ome.zarr")


def _write_review(folder: Path, result: Path) -> None:
    """Write a result with its objects as QuPath sees them, and corrections of them."""
    import wsi_unet

    folder.mkdir()
    shutil.copytree(result, folder / "slide.ome.zarr")
    wsi_unet.export(result, "qupath", folder / "edited.geojson.gz")
    wsi_unet.import_annotations(folder / "edited.geojson.gz", folder / "slide.ome.zarr")
