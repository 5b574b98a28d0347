"""The families of U-Net checkpoints that can be imported, one description each.

A description says how others name and arrange the layers of their networks, as their documentation
and checkpoints show; the networks themselves are our own.
"""

from __future__ import annotations

from dataclasses import replace

from wsi_unet.models.importing.families.family import Family
from wsi_unet.models.importing.families.layout import Assumption
from wsi_unet.models.importing.families.plain import PlainUNetLayout
from wsi_unet.models.importing.families.residual import ResidualUNetLayout, ResNetUNetLayout

_OURS = PlainUNetLayout(
    first="contracting.0",
    down="contracting.{level}",
    up="expanding.{stage}",
    convolution=".{slot}",
    upsampling=("upsampling.{stage}",),
    head="head",
    padding=None,
)

_MILESIAL = PlainUNetLayout(
    first="inc.double_conv",
    down="down{level}.maxpool_conv.1.double_conv",
    up="up{stage1}.conv.double_conv",
    convolution=".{slot}",
    norm=".{norm}",
    upsampling=("up{stage1}.up",),
    head="outc.conv",
    align_corners=True,
    odd="zeros",
)

_MILESIAL_ASSUMPTIONS = (
    Assumption("odd sides filled up with zeros, as since the middle of 2018"),
    Assumption("bilinear upsampling with aligned corners", (("upsampling", "bilinear"),)),
)

_JVANVUGT = PlainUNetLayout(
    first="down_path.{level}.block",
    down="down_path.{level}.block",
    up="up_path.{stage}.conv_block.block",
    convolution=".{slot}",
    upsampling=("up_path.{stage}.up", "up_path.{stage}.up.1"),
    head="last",
    skip_first=False,
    norm_first=False,
    padding=None,
)

_MATEUSZBUDA = PlainUNetLayout(
    first="encoder{level1}.enc{level1}",
    down="encoder{level1}.enc{level1}",
    bottom="bottleneck.bottleneck",
    up="decoder{rise}.dec{rise}",
    convolution="conv{conv1}",
    norm="norm{conv1}",
    upsampling=("upconv{rise}",),
    head="conv",
    skip_first=False,
)

_BASIC = PlainUNetLayout(
    first="conv_0",
    down="down_{level}.convs",
    up="upcat_{rise}.convs",
    convolution=".conv_{conv}.conv",
    norm=".conv_{conv}.adn.N",
    upsampling=("upcat_{rise}.upsample.deconv", "upcat_{rise}.upsample.preconv"),
    head="final_conv",
    negative_slope=0.1,
    align_corners=True,
    odd="replicate",
)

_RESNET = ResNetUNetLayout(
    stem="encoder.conv1",
    stem_norm="encoder.bn1",
    block="encoder.layer{stage1}.{block}",
    convolution=".conv{conv1}",
    norm=".bn{conv1}",
    shortcut=(".downsample.0", ".downsample.1"),
    expanding=("decoder.blocks.{stage}.conv{conv1}.0", "decoder.blocks.{stage}.conv{conv1}.1"),
    head="segmentation_head.0",
)

_RESIDUAL = ResidualUNetLayout(
    level="1.submodule.",
    down="0.",
    up="2.",
    convolution="conv",
    norm="adn.N",
    activation="adn.A",
    unit="conv.unit{unit}.",
    shortcut="residual",
    units=True,
)

_RELU = Assumption("ReLU", option="activation")
_MAX_POOLING = Assumption("2×2 max pooling")
_ZEROS = Assumption("convolutions padded with zeros", (("padding", "same"),), "padding")
_SKIP_FIRST = Assumption("skip connections joined before the upsampled map")
_SKIP_LAST = Assumption("skip connections joined after the upsampled map")

FAMILIES = (
    Family(
        "wsi-unet",
        "a network of this package",
        tuple(
            replace(_OURS, norm=norm, norm_first=first, convolutions=count)
            for count in (2, 1, 3, 4)
            for norm, first in ((None, True), (".{norm}", True), (".{norm}", False))
        ),
        assumptions=(
            _RELU,
            Assumption(
                "bilinear upsampling without aligned corners", (("upsampling", "bilinear"),)
            ),
            Assumption("images of odd sides mirrored up to the period", (("padding", "same"),)),
        ),
    ),
    Family(
        "milesial",
        "milesial/Pytorch-UNet",
        (_MILESIAL,),
        assumptions=(_RELU, _MAX_POOLING, _ZEROS, _SKIP_FIRST, *_MILESIAL_ASSUMPTIONS),
    ),
    Family(
        "milesial-2018",
        "milesial/Pytorch-UNet before 2019",
        (
            replace(
                _MILESIAL,
                first="inc.conv.conv",
                down="down{level}.mpconv.1.conv",
                up="up{stage1}.conv.conv",
            ),
        ),
        head="sigmoid",
        assumptions=(_RELU, _MAX_POOLING, _ZEROS, _SKIP_FIRST, *_MILESIAL_ASSUMPTIONS),
    ),
    Family(
        "milesial-1x1",
        "milesial/Pytorch-UNet with a 1×1 convolution and ReLU after bilinear upsampling",
        tuple(
            replace(
                _MILESIAL,
                first=f"{first}.{pair}",
                down=f"down{{level}}.{down}.1.{pair}",
                up=f"up{{stage1}}.conv.{pair}",
                head=head,
                upsampling=("up{stage1}.up.1",),
                activated_upsampling=True,
            )
            for pair in ("conv", "double_conv")
            for first in ("inc.conv", "inc")
            for down in ("mpconv", "maxpool_conv")
            for head in ("outc.conv", "outc")
        ),
        head="sigmoid",
        assumptions=(
            _RELU,
            Assumption("the same activation after the 1×1 convolutions of the upsampling"),
            _MAX_POOLING,
            _ZEROS,
            _SKIP_FIRST,
            *_MILESIAL_ASSUMPTIONS,
        ),
    ),
    Family(
        "jvanvugt",
        "jvanvugt/pytorch-unet",
        (_JVANVUGT, replace(_JVANVUGT, norm=".{norm}")),
        assumptions=(
            _RELU,
            _MAX_POOLING,
            _SKIP_LAST,
            Assumption(
                "bilinear upsampling without aligned corners", (("upsampling", "bilinear"),)
            ),
        ),
    ),
    Family(
        "mateuszbuda",
        "mateuszbuda/brain-segmentation-pytorch",
        (_MATEUSZBUDA,),
        head="sigmoid",
        assumptions=(_RELU, _MAX_POOLING, _ZEROS, _SKIP_LAST),
    ),
    Family(
        "monai-basic-unet",
        "MONAI's BasicUNet",
        (_BASIC, replace(_BASIC, norm=None, hidden_norm=True)),
        assumptions=(
            Assumption("LeakyReLU of slope 0.1", option="activation"),
            _MAX_POOLING,
            _ZEROS,
            _SKIP_FIRST,
            Assumption("odd sides filled up by their edge"),
            Assumption("bilinear upsampling with aligned corners", (("upsampling", "bilinear"),)),
        ),
    ),
    Family(
        "monai-unet",
        "MONAI's UNet",
        (_RESIDUAL, replace(_RESIDUAL, units=False)),
        assumptions=(
            Assumption("strides of 2"),
            Assumption('adn_ordering "NDA" (norm before activation)'),
            Assumption("convolutions padded with zeros"),
            Assumption(
                "instance norm without weights",
                (("norm", "instance"), ("affine", False)),
                "norm",
            ),
        ),
    ),
    Family(
        "smp-unet",
        "segmentation_models.pytorch's Unet with a ResNet",
        (_RESNET,),
        assumptions=(
            Assumption("nearest-neighbour upsampling, no activation in the head"),
            Assumption("ReLU, 3×3 max pooling, convolutions padded with zeros"),
        ),
        unused=("classification_head.",),
    ),
)
"""All families, in the order in which they are tried."""
