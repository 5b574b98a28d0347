"""Geometric augmentation: random shifts, scales, rotations, deformations and flips of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.models.inference.augmentation import VIEWS, View
from wsi_unet.training.recipe_sections import Warping

Coordinates = NDArray[np.float32]
"""(2, side, side): (y, x) that each pixel of a sample shows, px from the centre."""


@dataclass(frozen=True, eq=False)
class Warp:
    """A geometric transform of a sample.

    The pixel at position p of the sample, (y, x) px from its centre, shows the field at
    shift + scale · rotation · (p + d(p)), where d is the elastic displacement; then the sample is
    flipped.

    Attributes:
        shift: (y, x), whole px of the field.
        scale: px of the field per px of the sample, along the field's (y, x); above 1 the field is
            shrunk.
        angle: angle of the rotation, from y to x, radians.
        displacements: (2, n, n) displacements (y, x) of a coarse grid that spans the sample, px;
            None: no deformation.
        view: how the sample is flipped.
    """

    shift: tuple[int, int] = (0, 0)
    scale: tuple[float, float] = (1.0, 1.0)
    angle: float = 0.0
    displacements: NDArray[np.float32] | None = None
    view: View = VIEWS["none"][0]

    @classmethod
    def draw(cls, settings: Warping, rng: np.random.Generator) -> Warp:
        """Return a random transform; with default settings, the identity."""
        views = VIEWS["d4" if settings.flips else "none"]
        view = views[rng.integers(len(views))]
        angle = rng.uniform(0, 2 * math.pi) if rng.random() < settings.rotation else 0.0
        most = int(settings.shift)
        y, x = (int(px) for px in rng.integers(-most, most + 1, 2))
        size = aspect = 0.0
        if rng.random() < settings.scaled:
            size = rng.uniform(*np.log(settings.scale))
            aspect = rng.uniform(-settings.squeeze, settings.squeeze) / 2
        displacements = None
        if settings.elastic and rng.random() < settings.elastic_share:
            shape = (2, settings.elastic_grid, settings.elastic_grid)
            displacements = rng.normal(0, settings.elastic, shape).astype(np.float32)
        return cls(
            shift=(y, x),
            scale=(math.exp(-size - aspect), math.exp(-size + aspect)),
            angle=angle,
            displacements=displacements,
            view=view,
        )

    @property
    def is_straight(self) -> bool:
        """Whether there is neither a rotation nor a deformation."""
        return self.angle == 0 and self.displacements is None

    def coordinates(self, side: int) -> Coordinates:
        """Return rotation · (p + d(p)) for each pixel p of a sample of `side` x `side` px.

        The centre is at (side − 1) / 2, so coordinates of even sides end in ½.
        """
        position = np.arange(side) - (side - 1) / 2
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        rows, columns = (turn[:, axis, None] * position for axis in (0, 1))
        coordinates: Coordinates = (rows[:, :, None] + columns[:, None, :]).astype(np.float32)
        if self.displacements is not None:
            spread = interpolation(self.displacements.shape[-1], side)
            turned = np.einsum("kl,lij->kij", turn.astype(np.float32), self.displacements)
            # Not as a matrix product: its last bits may depend on the number of threads, and a
            # small one takes longer to start threads than to compute.
            for points, share in zip(
                np.einsum("yi,kij->jky", spread, turned), spread.T, strict=True
            ):
                coordinates += points[:, :, None] * share
        return coordinates


def interpolation(points: int, side: int) -> NDArray[np.float32]:
    """Return the matrix (side, points) of cubic interpolation along one axis.

    The first and the last point lie on the centres of the first and the last pixel, and are
    repeated beyond. The kernel is Keys' with a = −½ (Keys 1981, equation 15).
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
