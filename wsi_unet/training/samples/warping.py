"""How samples are moved, turned, scaled and bent: coordinates first, then everything along them.

A sample is a square around a centre. Its image, its labels and its weights are taken at the same
source coordinates, so what belongs together stays together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from wsi_unet.training.recipe import Warping
from wsi_unet.training.samples.filters import gaussian_blur, radius_of

CUBIC_REACH = 2
"""Px around a position that cubic interpolation looks at."""

LEAST_BLUR = 0.3
"""Deviation, px, below which a Gaussian along an axis leaves 99 % of a pixel where it is."""

Coordinates = NDArray[np.float32]
"""(2, side, side): source (y, x) of each pixel of a sample, px from the sample's centre."""

Matrix = tuple[tuple[float, float], tuple[float, float]]

Pixel = TypeVar("Pixel", np.uint8, np.float32)


@dataclass(frozen=True, eq=False)
class Warp:
    """One way to move, turn, scale and bend a sample.

    A position p of the sample, (y, x) px from its centre, shows the source at
    shift + scale · turn · (p + d(p)), d being the elastic displacement.

    Attributes:
        turn: an orthogonal matrix.
        scale: source px per px of the sample, along the source's (y, x); above 1: it shrinks.
        shift: (y, x), whole px.
        displacements: (2, n, n), (y, x) of a coarse grid that spans the sample, px; None: it isn't
            bent.
    """

    turn: Matrix = ((1.0, 0.0), (0.0, 1.0))
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[int, int] = (0, 0)
    displacements: NDArray[np.float32] | None = None

    @classmethod
    def draw(cls, settings: Warping, rng: np.random.Generator) -> Warp:
        """Return a random one; without settings, the one that changes nothing."""
        turn = np.eye(2)
        if settings.flips:
            turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), int(rng.integers(4)))
            turn = turn * np.array([1, rng.choice([-1, 1])])
        if rng.random() < settings.rotation:
            angle = rng.uniform(0, 2 * math.pi)
            turn = turn @ [
                [math.cos(angle), -math.sin(angle)],
                [math.sin(angle), math.cos(angle)],
            ]
        most = int(settings.shift)
        shift = rng.integers(-most, most + 1, 2)
        size = aspect = 0.0
        if rng.random() < settings.scaled:
            size = rng.uniform(*np.log(settings.scale))
            aspect = rng.uniform(-settings.squeeze, settings.squeeze) / 2
        displacements = None
        if settings.elastic and rng.random() < settings.elastic_share:
            shape = (2, settings.elastic_grid, settings.elastic_grid)
            displacements = rng.normal(0, settings.elastic, shape).astype(np.float32)
        return cls(
            turn=((float(turn[0, 0]), float(turn[0, 1])), (float(turn[1, 0]), float(turn[1, 1]))),
            scale=(math.exp(-size - aspect), math.exp(-size + aspect)),
            shift=(int(shift[0]), int(shift[1])),
            displacements=displacements,
        )

    def coordinates(self, side: int) -> Coordinates:
        """Return where each pixel of a sample of `side` x `side` px is taken from.

        The centre is at (side − 1) / 2, so coordinates of even sides end in ½.
        """
        position = np.arange(side) - (side - 1) / 2
        matrix = np.array(self.scale)[:, None] * np.array(self.turn)
        rows, columns = (matrix[:, axis, None] * position for axis in (0, 1))
        start = np.array(self.shift)[:, None] + rows
        coordinates: Coordinates = (start[:, :, None] + columns[:, None, :]).astype(np.float32)
        if self.displacements is not None:
            spread = interpolation(self.displacements.shape[-1], side)
            turned = np.einsum("kl,lij->kij", matrix.astype(np.float32), self.displacements)
            # Not as a matrix product: its last bits may change with the number of threads, and
            # small ones wait for threads longer than they compute.
            for points, share in zip(
                np.einsum("yi,kij->jky", spread, turned), spread.T, strict=True
            ):
                coordinates += points[:, :, None] * share
        return coordinates

    @property
    def blur(self) -> tuple[float, float]:
        """Deviations (y, x) of the Gaussian that the source needs before it is shrunk, px.

        A pixel is taken to be a Gaussian of half its side (Lowe 2004, section 3.3), and the
        squares of deviations add up. Below `LEAST_BLUR` there is none.
        """
        sigmas = (math.sqrt(max(0.0, ratio**2 - 1)) / 2 for ratio in self.scale)
        y, x = (sigma if sigma >= LEAST_BLUR else 0.0 for sigma in sigmas)
        return y, x

    def reach(self, coordinates: Coordinates) -> int:
        """Return how many px of the source are needed beyond the sample's own square, each side.

        A square grown by so much (negative: shrunk) has all that sampling looks at.
        """
        half = (coordinates.shape[-1] - 1) / 2
        extent = max(float(coordinates.max()), -float(coordinates.min()))
        reach: int = math.ceil(extent - half)
        if _are_whole(coordinates + np.float32(half)):
            return reach
        return reach + CUBIC_REACH + max(radius_of(sigma) for sigma in self.blur)


def interpolation(points: int, side: int) -> NDArray[np.float32]:
    """Return the matrix (side, points) that interpolates along one axis, cubically.

    The first and the last point lie on the centres of the first and the last pixel; beyond them
    they are repeated. The kernel is Keys' with a = −½ (Keys 1981, equation 15).
    """
    position = np.linspace(0, points - 1, side) if side > 1 else np.array([(points - 1) / 2])
    taps = np.arange(-1, points + 1)
    t = np.abs(position[:, None] - taps)
    near, far = (1.5 * t - 2.5) * t**2 + 1, ((2.5 - t / 2) * t - 4) * t + 2
    kernel = np.where(t <= 1, near, np.where(t < 2, far, 0))
    matrix = kernel[:, 1:-1]
    matrix[:, 0] += kernel[:, 0]
    matrix[:, -1] += kernel[:, -1]
    return matrix.astype(np.float32)


def middle(array: NDArray[Pixel], side: int) -> NDArray[Pixel]:
    """Return the `side` x `side` px in the middle of what a sample has, (…, h, w)."""
    before = (array.shape[-1] - side) // 2
    return array[..., before : before + side, before : before + side]


def sample_image(
    image: NDArray[np.uint8], coordinates: Coordinates, blur: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float32]:
    """Return an image at coordinates, interpolated cubically; at whole pixels, those pixels.

    Args:
        image: (h, w, c), of the same centre as the sample.
        coordinates: lie on it.
        blur: of `Warp`.

    Returns:
        (c, side, side), 0 to 1.
    """
    positions = _positions(coordinates, image.shape[:2])
    if blur == (0.0, 0.0) and _are_whole(positions):
        taken = _at(image, positions).transpose(2, 0, 1)
        return np.ascontiguousarray(taken, np.float32) / np.float32(255)
    smooth = gaussian_blur(image.astype(np.float32), (*blur, 0))
    planes = torch.from_numpy(smooth).permute(2, 0, 1)
    sampled = _interpolate(planes, coordinates, "bicubic").contiguous().numpy()
    sampled *= np.float32(1 / 255)
    return np.clip(sampled, 0, 1, out=sampled)


def sample_weights(weights: NDArray[np.float32], coordinates: Coordinates) -> NDArray[np.float32]:
    """Return weights (h, w) at coordinates, interpolated linearly; at whole pixels, as they are."""
    positions = _positions(coordinates, weights.shape)
    if _are_whole(positions):
        return _at(weights, positions)
    planes = torch.from_numpy(np.ascontiguousarray(weights))[None]
    return _interpolate(planes, coordinates, "bilinear")[0].numpy()


def sample_labels(labels: NDArray[np.uint8], coordinates: Coordinates) -> NDArray[np.uint8]:
    """Return the labels (h, w) of the nearest pixels."""
    _refuse_outside(coordinates, labels.shape)
    # Rounded where the array's size makes no difference: two windows agree on what lies half way.
    y, x = (
        np.floor(along + (0.5 if side % 2 else 1.0)).astype(np.intp) + (side - 1) // 2
        for along, side in zip(coordinates, labels.shape, strict=True)
    )
    nearest: NDArray[np.uint8] = labels[y, x]
    return nearest


def _positions(coordinates: Coordinates, shape: tuple[int, ...]) -> Coordinates:
    """Return coordinates as indices of an array whose centre they are relative to."""
    _refuse_outside(coordinates, shape)
    return coordinates + np.array([(side - 1) / 2 for side in shape], np.float32)[:, None, None]


def _refuse_outside(coordinates: Coordinates, shape: tuple[int, ...]) -> None:
    for along, side in zip(coordinates, shape, strict=True):
        if max(float(along.max()), -float(along.min())) > (side - 1) / 2:
            raise ValueError(f"coordinates lie outside of an array of {shape} px")


def _at(array: NDArray[Pixel], positions: Coordinates) -> NDArray[Pixel]:
    y, x = positions.astype(np.intp)
    taken: NDArray[Pixel] = array[y, x]
    return taken


def _are_whole(positions: Coordinates) -> bool:
    return bool((positions == np.rint(positions)).all())


def _interpolate(planes: torch.Tensor, coordinates: Coordinates, mode: str) -> torch.Tensor:
    """Return planes (c, h, w) at coordinates, (c, side, side)."""
    halves = [max(1, side - 1) / 2 for side in planes.shape[1:]]
    grid = np.stack([coordinates[1] / halves[1], coordinates[0] / halves[0]], axis=-1)
    return F.grid_sample(
        planes[None],
        torch.from_numpy(grid.astype(np.float32, copy=False))[None],
        mode=mode,
        padding_mode="border",
        align_corners=True,
    )[0]
