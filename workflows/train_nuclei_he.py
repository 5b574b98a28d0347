"""Train the bundled model `nuclei-he`: nuclei against background at 0.5 µm per pixel.

    python workflows/train_nuclei_he.py DATA wsi_unet/models/bundled/nuclei-he

DATA holds `nuclei_he` (stained-tissue fields of the 2018 Data Science Bowl, BBBC038, CC0) and may
hold `nucls_he` (NuCLS, CC0; Amgad et al., GigaScience 2022), each a folder with `images` (RGB PNG)
and `instances` (16-bit PNG of the same names, one number per nucleus, 0 elsewhere).

Every fifth field of nuclei_he is held out: never trained on, only measured. `--hold-out-nucls`
keeps all of nucls_he out too, which gives a figure for a laboratory, scanner and stain that the
network has never seen. The bundled model came from these two runs, a quarter of an hour of one
core in all:

    … DATA twin --iterations 600 --hold-out-nucls
    … DATA wsi_unet/models/bundled/nuclei-he --twin twin

With the same seed, number of workers and threads, machine and torch version, a run gives the same
weights.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import JsonValue
from scipy import fft
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from wsi_unet.geometry import Box, reflect
from wsi_unet.models import (
    ModelClass,
    ModelSpec,
    Scaling,
    UNet,
    UNetConfig,
    read_spec,
    save_model,
)

Array = NDArray[np.float32]

MPP = 0.5
NUCLS_MPP = 0.2
TYPICAL_DIAMETER = 13.0
"""Px at 0.5 mpp, so 6.5 µm: between a lymphocyte and an epithelial cell's nucleus."""

TWIN_KEYS = ("iterations", "held_out", "other_source")
"""What this model's card tells of the model that was trained without nucls_he."""

CORE = 156
"""Px of output per training sample; 244 px of input."""

ARCHITECTURE = UNetConfig(padding="valid", depth=3, base_width=16, norm="batch")
BORDER = ARCHITECTURE.border()
SIDE = CORE + 2 * BORDER.shrink
SCALING = Scaling(mean=(0.7, 0.6, 0.7), std=(0.25, 0.25, 0.25))

DYES = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=np.float32)
"""Optical density (R, G, B) of haematoxylin, eosin and DAB: Ruifrok and Johnston 2001."""

RED_CELLS = np.array([0.05, 0.8, 0.6], dtype=np.float32)[:, None, None]
INK = np.array([0.9, 0.3, 0.4], dtype=np.float32)[:, None, None]
"""Optical densities (R, G, B) of red blood cells and of the green ink that marks margins."""


@dataclass(frozen=True)
class Field:
    """One annotated field of view.

    Attributes:
        source: name of its data set.
        planes: float32 (4, h, w): R, G, B in 0..1, and 1 where a nucleus is.
        scale: what to multiply its sides by to have it at 0.5 µm per pixel.
        pink: whether eosin is seen; most of nuclei_he is purple alone.
    """

    source: str
    planes: Tensor
    scale: float
    pink: bool


def read_fields(folder: Path, mpp: float | None) -> list[Field]:
    """Read a data set in the order of its files' names; none where there is no such folder.

    Args:
        folder: holds `images` and `instances`.
        mpp: µm per pixel; None: it differs and isn't known, so it is told from the median area
            of each field's nuclei.
    """
    fields = []
    for path in sorted((folder / "images").glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
        instances = np.asarray(Image.open(folder / "instances" / path.name))
        areas = np.bincount(instances.ravel())[1:]
        diameter = 2 * math.sqrt(float(np.median(areas[areas > 0])) / math.pi)
        scale = mpp / MPP if mpp else min(TYPICAL_DIAMETER / diameter, 1.0)
        planes = np.concatenate([image, (instances > 0)[..., None]], axis=2, dtype=np.float32)
        red, _, blue = image.mean(axis=(0, 1))
        tensor = torch.from_numpy(planes.transpose(2, 0, 1).copy())
        fields.append(Field(folder.name, tensor, scale, pink=bool(red > blue)))
    return fields


def resize(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Return (c, rows, columns), antialiased."""
    size = (max(2, rows), max(2, columns))
    return F.interpolate(planes[None], size=size, mode="bilinear", antialias=True)[0]


def read_mirrored(planes: Tensor, window: Box) -> Tensor:
    """Return the window (c, rows, columns), mirrored beyond the edges of `planes`."""
    rows = torch.from_numpy(reflect(window.y0, window.y1, planes.shape[1]))
    columns = torch.from_numpy(reflect(window.x0, window.x1, planes.shape[2]))
    return planes[:, rows][:, :, columns]


def crop(field: Field, rng: np.random.Generator) -> Tensor:
    """Return a random piece (4, SIDE, SIDE) of a field: scaled, squeezed, turned, flipped."""
    zoom = field.scale * math.exp(rng.uniform(math.log(0.6), math.log(1.8)))
    squeeze = math.exp(rng.uniform(-0.12, 0.12))
    rows, columns = (side * zoom for side in field.planes.shape[1:])
    planes = resize(field.planes, round(rows * squeeze), round(columns / squeeze))
    y, x = (
        int(rng.integers(min(0, side - CORE), max(0, side - CORE) + 1)) for side in planes.shape[1:]
    )
    core = Box(y, x, y + CORE, x + CORE)
    piece = torch.rot90(
        read_mirrored(planes, core.grow(BORDER.shrink, BORDER.shrink)), int(rng.integers(4)), (1, 2)
    )
    return piece.flip(2) if rng.random() < 0.5 else piece


def texture(along: float, across: float, rng: np.random.Generator) -> Array:
    """Return noise (SIDE, SIDE) of unit variance, smoothed in a random direction.

    Args:
        along: deviation of the Gaussian in that direction, px.
        across: the same at right angles to it; equal ones give clouds, unequal ones fibres.
        rng: source of chance.
    """
    ky, kx = 2 * np.pi * fft.fftfreq(SIDE)[:, None], 2 * np.pi * fft.rfftfreq(SIDE)[None]
    angle = rng.uniform(0, np.pi)
    u, v = kx * np.cos(angle) + ky * np.sin(angle), ky * np.cos(angle) - kx * np.sin(angle)
    damping = np.exp(-((u * along) ** 2 + (v * across) ** 2) / 2).astype(np.float32)
    white = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    noise: Array = fft.irfft2(fft.rfft2(white) * damping, s=(SIDE, SIDE))
    noise /= max(float(noise.std()), 1e-6)
    return noise


def dye(purple: float, rng: np.random.Generator) -> Array:
    """Return the optical density (3, 1, 1), unit length, of a colour from pink 0 to purple 1."""
    pink = np.array([rng.uniform(0.03, 0.25), 0.9, rng.uniform(0.15, 0.6)])
    colour = (1 - purple) * pink / np.linalg.norm(pink) + purple * DYES[0]
    unit: Array = (colour / np.linalg.norm(colour)).astype(np.float32)
    return unit[:, None, None]


def lines(rng: np.random.Generator) -> Array:
    """Return thin curved lines (SIDE, SIDE), 0..1: where a smooth field crosses a level."""
    smooth = rng.uniform(6, 30)
    field = texture(smooth, smooth, rng) - rng.uniform(-1, 1)
    slope = np.hypot(*np.gradient(field)) + 1e-3
    line: Array = np.exp(-((field / slope / rng.uniform(0.6, 2)) ** 2) / 2)
    return line


def tissue_without_nuclei(rng: np.random.Generator) -> Array:
    """Return optical densities (3, SIDE, SIDE) of made-up cytoplasm, fibres, membranes, cells.

    Nearly all fields have plain backgrounds, which teaches a network that whatever is dark is
    a nucleus. Slides have more to show. Optical densities of what lies in the light's way add
    up (Beer-Lambert), so this can be laid over a field or shown alone.
    """
    density = np.zeros((3, SIDE, SIDE), np.float32)
    if rng.random() < 0.8:
        cloud = texture(rng.uniform(10, 40), rng.uniform(10, 40), rng) + rng.uniform(-1, 2)
        density += np.clip(cloud, 0, None) * rng.uniform(0, 0.5) * dye(rng.uniform(0, 0.8), rng)
    for _ in range(int(rng.integers(0, 4))):
        width, pink = rng.uniform(0.6, 4), dye(rng.uniform(0, 0.25), rng)
        fibres = texture(width * rng.uniform(5, 20), width, rng) + rng.uniform(-1.2, 1)
        density += np.clip(fibres, 0, None) * rng.uniform(0.05, 0.6) * pink
    for _ in range(int(rng.integers(0, 3))):
        density += lines(rng) * rng.uniform(0.1, 0.9) * dye(rng.uniform(0, 0.8), rng)
    for colour in (RED_CELLS, INK):
        if rng.random() < 0.15:
            size = rng.uniform(1, 3)
            specks = texture(size, size, rng) > rng.uniform(1.2, 2.5)
            density += specks * rng.uniform(0.3, 1.3) * colour
    grain: Array = density * (1 + rng.uniform(0, 0.15) * texture(0.7, 0.7, rng))
    return grain


def keratin(rng: np.random.Generator) -> Array:
    """Return optical densities (3, SIDE, SIDE) of dark sheets and flakes, larger than nuclei."""
    if rng.random() < 0.5:
        sheets = texture(rng.uniform(40, 80), rng.uniform(0.8, 5), rng) + rng.uniform(-1, 1.5)
    else:
        sheets = np.maximum(lines(rng), lines(rng))
    dark: Array = np.clip(sheets, 0, None) * rng.uniform(0.4, 1.6) * dye(rng.uniform(0.2, 0.9), rng)
    return dark


def restain(density: Array, rng: np.random.Generator) -> Array:
    """Return optical densities (3, h, w) under another white balance and other dyes."""
    ground = np.quantile(density[:, ::4, ::4].reshape(3, -1), 0.05, axis=1)
    density = density - (rng.uniform(0, 1) * ground)[:, None, None]
    amounts = np.einsum("ij,jyx->iyx", np.linalg.inv(DYES.T), density)
    amounts *= rng.uniform(0.6, 1.6) * rng.uniform(0.75, 1.3, (3, 1, 1))
    dyes = DYES + rng.normal(0, 0.07, (3, 3))
    restained: Array = np.einsum("ij,jyx->iyx", dyes.T, amounts)
    return restained


def scan(density: Array, rng: np.random.Generator) -> Tensor:
    """Return the image (3, h, w), 0..1 in 256 steps, that a scanner makes of optical densities."""
    image = np.exp(-np.clip(density, 0, None)) * rng.uniform(0.88, 1.03, (3, 1, 1))
    if rng.random() < 0.7:  # out of focus (strength above 0) or sharpened by the scanner
        sigma, strength = rng.uniform(0.4, 1.3), rng.uniform(-1.2, 1)
        image += strength * (gaussian_filter(image, (0, sigma, sigma), truncate=3) - image)
    image += rng.uniform(0, 0.025) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    if rng.random() < 0.4:
        file, quality = io.BytesIO(), int(rng.integers(40, 95))
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        pixels = np.asarray(Image.open(file)).transpose(2, 0, 1)
    return torch.from_numpy(pixels.astype(np.float32) / 255)


class Samples(IterableDataset[tuple[Tensor, Tensor]]):
    """Image (3, SIDE, SIDE) in 0..1 and classes (CORE, CORE), without end.

    Each worker process draws its own, from the seed and its number.
    """

    def __init__(self, fields: Sequence[Field], seed: int) -> None:
        groups = (
            (0.45, [f for f in fields if f.source != "nucls_he" and not f.pink]),
            (0.20, [f for f in fields if f.source != "nucls_he" and f.pink]),
            (0.35, [f for f in fields if f.source == "nucls_he"]),
        )
        self.groups = [members for _, members in groups if members]
        shares = np.array([share for share, members in groups if members])
        self.shares = shares / shares.sum()
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            yield self.without_nuclei(rng) if rng.random() < 0.15 else self.with_nuclei(rng)

    def with_nuclei(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A piece of a field, restained; fields with a plain background get another one."""
        members = self.groups[rng.choice(len(self.groups), p=self.shares)]
        field = members[rng.integers(len(members))]
        piece = crop(field, rng)
        density = restain(-np.log(np.clip(piece[:3].numpy(), 1 / 255, 1)), rng)
        plain = field.source != "nucls_he" and not field.pink
        if rng.random() < (0.7 if plain else 0.3):
            density += tissue_without_nuclei(rng)
        inside = slice(BORDER.shrink, BORDER.shrink + CORE)
        return scan(density, rng), (piece[3, inside, inside] > 0.5).long()

    def without_nuclei(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Glass, or tissue in which there is nothing to find."""
        density = np.full((3, SIDE, SIDE), rng.uniform(0, 0.15), np.float32)
        if rng.random() < 0.7:
            density += tissue_without_nuclei(rng)
        if rng.random() < 0.5:
            density += keratin(rng)
        return scan(density, rng), torch.zeros(CORE, CORE, dtype=torch.long)


def standardise(images: Tensor) -> Tensor:
    """Return images (n, 3, h, w) in 0..1 as the network wants them."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (SCALING.mean, SCALING.std))
    return ((images - mean) / std).to(memory_format=torch.channels_last)


def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Return cross entropy + (1 − soft Dice of the nuclei), both over the whole batch."""
    nuclei, truth = logits.softmax(dim=1)[:, 1], classes.float()
    overlap = 2 * (nuclei * truth).sum() + 1
    return F.cross_entropy(logits, classes) + 1 - overlap / (nuclei.sum() + truth.sum() + 1)


@torch.inference_mode()
def measure(network: nn.Module, fields: Sequence[Field], name: str) -> dict[str, JsonValue]:
    """Return what the card says about a set of fields: the Dice of the nuclei at 0.5 mpp."""
    counts = []
    for field in fields:
        rows, columns = (round(side * field.scale) for side in field.planes.shape[1:])
        planes = resize(field.planes, rows, columns)
        core = BORDER.core(Box(0, 0, rows, columns))
        window = BORDER.window(core, (rows, columns))
        image = (read_mirrored(planes[:3], window) * 255).round() / 255
        inside = BORDER.core_in_output(core, window)
        logits = network(standardise(image[None]))[0, :, inside.y0 :, inside.x0 :]
        found, truth = (logits[1] > logits[0])[:rows, :columns], planes[3] > 0.5
        counts.append((int((found & truth).sum()), int(found.sum() + truth.sum())))
    overlap, total = np.array(counts).T
    pixels, mean = 2 * overlap.sum() / total.sum(), (2 * overlap / total).mean()
    return {
        "set": name,
        "images": len(fields),
        "dice": round(float(pixels), 4),
        "mean_dice_per_image": round(float(mean), 4),
    }


def train(network: UNet, fields: Sequence[Field], iterations: int, seed: int, workers: int) -> None:
    """Train on batches of 8, with bfloat16 convolutions, and say how it goes."""
    rate, started = 2e-3, time.monotonic()
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=iterations + 1, pct_start=0.05, cycle_momentum=False
    )
    batches = iter(DataLoader(Samples(fields, seed), batch_size=8, num_workers=workers))
    mean_loss = 2.0
    for iteration in range(1, iterations + 1):
        images, classes = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(standardise(images))
        loss = loss_of(logits.float(), classes)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(iteration, 100)
        if iteration % 100 == 0:
            seconds = time.monotonic() - started
            click.echo(f"{iteration} of {iterations}, {seconds:.0f} s, loss {mean_loss:.3f}")


def fold(network: UNet) -> UNet:
    """Return the same function without batch norm, whose scale and shift go into the weights."""
    folded = UNet(network.config.model_copy(update={"norm": "none"})).eval()
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    targets = (layer for layer in folded.modules() if isinstance(layer, kinds))
    layers = [layer for layer in network.eval().modules() if isinstance(layer, kinds)]
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            next(targets).load_state_dict(fuse_conv_bn_eval(layer, following).state_dict())
        elif not isinstance(layer, nn.BatchNorm2d):
            next(targets).load_state_dict(layer.state_dict())
    return folded


def describe(training_data: str, metrics: Mapping[str, JsonValue]) -> ModelSpec:
    """Return the model's card."""
    return ModelSpec(
        name="nuclei-he",
        architecture=ARCHITECTURE.model_copy(update={"norm": "none"}),
        classes=(
            ModelClass(name="background", color="#ffffff"),
            ModelClass(name="nuclei", color="#ffd700"),
        ),
        background="background",
        mpp=MPP,
        scaling=SCALING,
        license="CC0-1.0",
        description=(
            "Cell nuclei in haematoxylin and eosin at 0.5 µm per pixel: a small network for "
            "first looks and demonstrations. It tells nuclei from everything else, not one "
            "nucleus from the next. On slides it hasn't seen, flakes of keratin, ink and folds are "
            "partly taken for nuclei and pale nuclei missed; on the stain of a laboratory "
            "that it wasn't trained on expect much less than the held-out figure (see the "
            "twin's). Not for diagnostic use."
        ),
        training_data=training_data,
        metrics=dict(metrics),
    )


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--iterations", default=1100, show_default=True)
@click.option("--seed", default=2018, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Of the network.")
@click.option("--workers", default=1, show_default=True, help="Processes that make samples.")
@click.option(
    "--hold-out",
    default=5,
    show_default=True,
    help="One field of nuclei_he in so many isn't trained on.",
)
@click.option("--hold-out-nucls", is_flag=True, help="Train on nuclei_he only.")
@click.option(
    "--twin",
    type=click.Path(exists=True, path_type=Path),
    help="Trained with --hold-out-nucls; its figures go into this card, named as the twin's.",
)
def main(
    data: Path,
    output: Path,
    iterations: int,
    seed: int,
    threads: int,
    workers: int,
    hold_out: int,
    hold_out_nucls: bool,
    twin: Path | None,
) -> None:
    """See the module's text."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    fields = read_fields(data / "nuclei_he", mpp=None)
    nucls = read_fields(data / "nucls_he", NUCLS_MPP)
    held_out = fields[hold_out - 1 :: hold_out]
    training = [field for i, field in enumerate(fields) if (i + 1) % hold_out]
    sources = [f"{len(training)} fields of BBBC038v1 stage 1 (2018 Data Science Bowl, CC0)"]
    if nucls and not hold_out_nucls:
        training += nucls
        sources.append(f"{len(nucls)} fields of NuCLS (CC0; Amgad et al., GigaScience 2022)")
    sources.append("made-up tissue without nuclei")

    network = UNet(ARCHITECTURE)
    train(network, training, iterations, seed, workers)
    folded = fold(network)
    metrics: dict[str, JsonValue] = {
        "how": "Dice of the nuclei at 0.5 µm per pixel, over the pixels of all images together "
        "and as the mean over images; whole-image float32 forward; split by image, not by patient; "
        "the magnification of BBBC038 is told from the median area of the annotated nuclei",
        "iterations": iterations,
        "held_out": measure(folded, held_out, "BBBC038v1 stage 1, images never trained on"),
    }
    if nucls and hold_out_nucls:
        metrics["other_source"] = measure(folded, nucls, "NuCLS, not trained on")
    if twin is not None:
        card = read_spec(twin).metrics
        metrics["twin_not_trained_on_nucls"] = {key: card[key] for key in TWIN_KEYS}
    save_model(folded, describe("; ".join(sources), metrics), output, overwrite=True)
    click.echo(json.dumps(metrics, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
