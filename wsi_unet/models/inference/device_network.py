"""One model's network on a device: uint8 pixels in, its output for each view of a core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_unet.colour import CHANNEL_WEIGHTS
from wsi_unet.geometry import Box, Shape
from wsi_unet.models.exported.loading import prepare_network
from wsi_unet.models.inference.augmentation import VIEWS, View
from wsi_unet.models.inference.ensemble import EnsembleMember, IntensityStatistics
from wsi_unet.models.inference.heads import choose_head
from wsi_unet.models.networks.interpolation import Placement


@dataclass(frozen=True)
class _Scale:
    """The normalisation (v/255 − mean)/std of v from 0 to 255, as (v − shift) · factor."""

    shift: Tensor
    factor: Tensor


class DeviceNetwork:
    """The network of one model on a device.

    Args:
        member: the model and the views it predicts.
        device: "cpu" or "cuda:<index>".
        dtype: number type that the whole network runs in, after batch norm was folded.
        threads: cores that one forward pass may use on the CPU.

    Attributes:
        border: the context that a core needs.
        head: reads the output.
        module: the network, on the device.

    Raises:
        ModelError: the model has changed on disk.
    """

    def __init__(
        self, member: EnsembleMember, device: str, dtype: torch.dtype, threads: int
    ) -> None:
        self.border = member.border()
        self.head = choose_head(member.spec)
        self.module: nn.Module = prepare_network(
            member.model.build(), device=device, dtype=dtype, threads=threads
        )
        self._views = VIEWS[member.tta]
        # A network that is told where a window lies needs no windows of one size.
        self._needs_placement = member.needs_placement
        self._order = member.spec.channel_order
        self._device, self._dtype = device, dtype
        self._constants = self._make_scale(
            member.spec.normalisation.mean, member.spec.normalisation.std
        )
        self._luma = self._tensor(CHANNEL_WEIGHTS["gray"][0])

    def outputs(
        self,
        image: Tensor,
        window: Box,
        core: Box,
        shape: Shape,
        statistics: IntensityStatistics | None,
    ) -> Iterator[Tensor]:
        """Yield the network's output for the core, float32 (classes, rows, columns), by view.

        Args:
            image: RGB of `window`, uint8 (rows, columns, 3), on the device.
            window: px of the raster; of a size that the network takes.
            core: the wanted pixels, px of the raster.
            shape: (rows, columns) of the whole raster, px.
            statistics: how intensities are normalised; None for the model's own constants.

        Raises:
            ValueError: the window's size doesn't fit the network, or the core isn't inside the
                output.
        """
        # Permuted, not copied: channels last in memory.
        normalised = self._normalise(image, statistics).permute(2, 0, 1)[None]
        inside = self.border.core_in_output(core, window)
        rows, columns = inside.slices()
        for view in self._views:
            turned = self._run(view.turn(normalised), view, window, shape)
            output = view.turn_back(turned)[0]
            if inside.y1 > output.shape[1] or inside.x1 > output.shape[2]:
                raise ValueError(
                    f"{inside} is not inside the network's output {tuple(output.shape)}"
                )
            yield output[:, rows, columns].float()

    def _run(self, image: Tensor, view: View, window: Box, shape: Shape) -> Tensor:
        if self._needs_placement:
            origin, whole = view.turn_window(window, self.border.full_shape(shape))
            output: Tensor = self.module(image, Placement(origin, whole))
        else:
            output = self.module(image)
        return output

    def _normalise(self, image: Tensor, statistics: IntensityStatistics | None) -> Tensor:
        """Return normalised intensities (h, w, channels) from uint8 RGB (h, w, 3)."""
        intensities = image.float()
        if self._order == "gray":
            intensities = (intensities * self._luma).sum(dim=2, keepdim=True)
        elif self._order == "bgr":
            intensities = intensities.flip(2)
        scale = self._constants
        if statistics is not None:
            scale = self._make_scale(statistics.mean, statistics.std)
        return intensities.sub_(scale.shift).mul_(scale.factor).to(self._dtype)

    def _make_scale(self, mean: Sequence[float], std: Sequence[float]) -> _Scale:
        shift = self._tensor([255 * value for value in mean])
        return _Scale(shift, self._tensor([1 / (255 * value) for value in std]))

    def _tensor(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self._device)
