"""Building the network that an architecture describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.networks.residual_unet import ResidualUNet
from wsi_unet.models.networks.resnet_unet import ResNetUNet
from wsi_unet.models.networks.unet import UNet

if TYPE_CHECKING:
    from torch import nn

    from wsi_unet.models.spec import Architecture

_NETWORKS: dict[type, Callable[[Any], nn.Module]] = {
    UNetConfig: UNet,
    ResNetUNetConfig: ResNetUNet,
    ResidualUNetConfig: ResidualUNet,
}


def build_network(architecture: Architecture) -> nn.Module:
    """Return the network that an architecture describes, with random weights.

    >>> from wsi_unet.models import UNetConfig
    >>> network = build_network(UNetConfig(depth=3, base_width=16))

    Args:
        architecture: a `UNetConfig`, `ResNetUNetConfig` or `ResidualUNetConfig`.

    Raises:
        TypeError: for a program or module, which is loaded from its file instead
            (see `wsi_unet.models.exported.loading`).
    """
    network = _NETWORKS.get(type(architecture))
    if network is None:
        raise TypeError(f"a {architecture.family} can't be built from its description")
    return network(architecture)
