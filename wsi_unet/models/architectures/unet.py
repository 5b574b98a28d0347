"""The shape of a U-Net as data, with its border and its cost; the network is `networks.unet`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from wsi_unet.geometry import Border, Edge, round_up
from wsi_unet.models.architectures.costs import CostCounter, ForwardCost
from wsi_unet.models.architectures.fields import Norm, Width, check_groups, is_local


class Channels(BaseModel):
    """The channels of every feature map.

    Attributes:
        contracting: channels of each level of the contracting path, from the top to the bottom.
        upsampled: channels after each upsampling, from the bottom to the top; None where maps are
            interpolated with the channels that they have.
        expanding: channels after every convolution of the expanding path, level by level from the
            bottom to the top.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contracting: tuple[Width, ...] = Field(min_length=2, max_length=7)
    upsampled: tuple[Width, ...] | None
    expanding: tuple[tuple[Width, ...], ...]


class UNetConfig(BaseModel):
    """The shape of one U-Net (Ronneberger et al. 2015, figure 1, and its common variants).

    The defaults are the paper's network: valid convolutions, four poolings, 64 channels at the
    top, two classes.

    >>> UNetConfig().border()
    Border(before=92, after=96, shrink=92, period=16, edge='mirror', tile=None)

    Attributes:
        family: which kind of network this describes.
        padding: "valid" (the paper: every 3×3 convolution crops one pixel per side) or "same"
            (zeros are added, the output is as large as the input).
        depth: number of 2×2 poolings, d.
        base_width: channels of the first level; each pooling doubles them.
        channels: the channels of every map, where they don't double with each pooling.
        in_channels: channels of the image.
        classes: channels of the output, one logit per class.
        upsampling: "transpose" (the paper's 2×2 up-convolution, stride 2) or "bilinear" (a 1×1
            convolution to the wanted channels, if they change, then ×2 interpolation).
        align_corners: whether that interpolation maps corner pixels onto corner pixels, which
            makes it depend on the size of the map.
        activated_upsampling: whether the activation also follows each upsampling.
        norm: what normalises each 3×3 convolution's output: "none", "batch", "instance" (over all
            of the image, so that the result depends on its size), or "group:G" (likewise, in G
            groups of channels).
        norm_first: whether the normalisation stands before the activation (the convolution has
            no bias then, unless the norm mixes channels) or after it.
        negative_slope: slope of the activation below 0; 0 is ReLU. Called `leak` in model.json.
        odd: how an upsampled map is padded where the map it is joined to has an odd side and is a
            row or column larger: "zeros", by its own edge ("replicate"), or "none": images that
            lead to odd sides are refused.
        dropout: share of values dropped at the end of the contracting path, while training.
        convolutions: 3×3 convolutions per level and side, k (the paper: 2).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    family: Literal["unet"] = "unet"
    padding: Literal["valid", "same"] = "valid"
    depth: int = Field(default=4, ge=1, le=6)
    base_width: int = Field(default=64, ge=1, le=512)
    channels: Channels | None = None
    in_channels: int = Field(default=3, ge=1, le=64)
    classes: int = Field(default=2, ge=1, le=255)
    upsampling: Literal["transpose", "bilinear"] = "transpose"
    align_corners: bool = False
    activated_upsampling: bool = False
    norm: Norm = "none"
    norm_first: bool = True
    negative_slope: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("leak", "negative_slope"),
        serialization_alias="leak",
    )
    odd: Literal["none", "zeros", "replicate"] = "none"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, allow_inf_nan=False)
    convolutions: int = Field(default=2, ge=1, le=4)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.align_corners and self.upsampling != "bilinear":
            raise ValueError("align_corners: only bilinear upsampling has corners to align")
        if self.padding == "valid" and (self.align_corners or self.odd != "none"):
            raise ValueError("valid convolutions go neither with align_corners nor with odd sides")
        self._check_channels()
        layout = self.layout
        check_groups(self.norm, {*layout.contracting, *(w for ws in layout.expanding for w in ws)})
        return self

    def _check_channels(self) -> None:
        if self.channels is None:
            return
        levels = len(self.channels.contracting), len(self.channels.expanding)
        if levels != (self.depth + 1, self.depth):
            raise ValueError(f"channels: {levels} levels don't make a U-Net of depth {self.depth}")
        upsampled = self.channels.upsampled
        if upsampled is None and self.upsampling == "transpose":
            raise ValueError("channels.upsampled: a transposed convolution needs its channels")
        if upsampled is not None and len(upsampled) != self.depth:
            raise ValueError(f"channels.upsampled: {len(upsampled)} numbers, not {self.depth}")
        if any(len(widths) != self.convolutions for widths in self.channels.expanding):
            raise ValueError(f"channels.expanding: not {self.convolutions} convolutions per level")

    @property
    def classes_out(self) -> int:
        """Channels of the output."""
        return self.classes

    @property
    def period(self) -> int:
        """M = 2^depth: the pooling grid repeats after this many px."""
        return int(2**self.depth)

    @property
    def layout(self) -> Channels:
        """The channels of every map: `channels`, or else doubling with each pooling."""
        if self.channels is not None:
            return self.channels
        widths = tuple(self.base_width * 2**level for level in range(self.depth + 1))
        upwards = tuple(reversed(widths[:-1]))
        expanding = tuple((width,) * self.convolutions for width in upwards)
        return Channels(contracting=widths, upsampled=upwards, expanding=expanding)

    @property
    def local(self) -> bool:
        """Whether a pixel of the output depends only on what is within the border around it."""
        return is_local(self.norm)

    @property
    def depends_on_size(self) -> bool:
        """Whether the output depends on the image's size, unless the network is given it."""
        return self.align_corners or not self.local

    def border(self) -> Border:
        """Return the context that a core needs, by formula.

        With d poolings, k 3×3 convolutions per level and side, and M = 2^d:

        - A valid network crops s = k(3M − 2) px per side: the bottom level's k convolutions cost
          kM, and a level j above the bottom costs k·2^j on the way down and k·2^j on the way up,
          which sum to 2k(M − 1). Its input side n is legal where every pooling divides it:
          n ≡ −2k (mod M). So a core of T px (a multiple of M) takes n = T + 2k(3M − 1), the
          smallest legal side that yields T, and the last 2k rows and columns of the output are
          dropped: 3kM px of context after the core. Windows need not start on the pooling grid,
          since the shrinkage is what puts the core on it; so 2k px less are enough before it.
        - A same-padding network's core depends on k(3M − 1) px per side. That is rounded up to
          the period, since its windows must start on the pooling grid: 3kM.
        - Bilinear upsampling looks at the neighbours of the coarser pixel too, which is M px more
          per side: one period. In a valid network the output's outermost M px, where interpolation
          had to repeat the map's edge, aren't what a larger window gives; so they are never in a
          core.

        These are the smallest legal numbers where 2k < M (as in the paper). In shallower networks
        the rounding inside differs, and up to 2k px too many are taken.
        """
        period, k = self.period, self.convolutions
        context = 3 * k * period + (period if self.upsampling == "bilinear" else 0)
        if self.padding == "same":
            # A network that defines odd sides itself sees the slide as it ends.
            edge: Edge = "clip" if self.odd == "none" else "cut"
            return Border(before=context, after=context, shrink=0, period=period, edge=edge)
        return Border(
            before=context - 2 * k,
            after=context,
            shrink=k * (3 * period - 2),
            period=period,
            edge="mirror",
        )

    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        """Return the cost of a forward pass on `side` × `side` px, with `item_bytes` per number."""
        return _follow_forward(self, CostCounter(side, item_bytes))


def check_side(config: UNetConfig, side: int) -> None:
    """Refuse an image side that the pooling grid doesn't fit, px.

    Raises:
        ValueError: the grid doesn't fit; the message names the next legal side.
    """
    legal = next_legal_side(config, side)
    if side != legal:
        raise ValueError(
            f"a side of {side} px doesn't fit a {config.padding} U-Net of depth {config.depth} "
            f"with {config.convolutions} convolutions per level; the next that does is {legal} px"
        )


def next_legal_side(config: UNetConfig, side: int) -> int:
    """Return the smallest image side (rows or columns, px) >= `side` that the network takes.

    >>> next_legal_side(UNetConfig(), 570)
    572
    """
    period, k = config.period, config.convolutions
    if config.odd != "none":
        return max(period, side)
    if config.padding == "same":
        return max(period, round_up(side, period))
    smallest = 2 * config.border().shrink + 1
    return round_up(max(side, smallest) + 2 * k, period) - 2 * k


def _follow_forward(config: UNetConfig, count: CostCounter) -> ForwardCost:
    """Follow `UNet.forward` map by map."""
    layout = config.layout

    def convolve(held: int, channels: int, widths: tuple[int, ...]) -> int:
        """Follow a level's convolutions on a map of `held` bytes, which is freed at their end."""
        previous = 0
        for width in widths:
            count.side -= 2 if config.padding == "valid" else 0
            new = count.convolve(channels, width, 3)
            count.drop(previous)
            previous, channels = new, width
        count.drop(held)
        return previous

    skips = []
    held, channels = 0, config.in_channels
    for level, width in enumerate(layout.contracting):
        held = convolve(held, channels, (width,) * config.convolutions)
        channels = width
        if level < config.depth:
            skips.append((held, width))
            count.side //= 2
            held = count.hold(width)
            count.spend(8 * width * count.side**2)  # the positions of the maxima, in int64
    for level, widths in enumerate(layout.expanding):
        width = channels
        if layout.upsampled is not None:
            width = layout.upsampled[level]
            count.multiply(channels, width, 2 if config.upsampling == "transpose" else 1)
        count.side *= 2
        upsampled = count.hold(width)
        count.drop(held)
        skip, skip_width = skips.pop()
        held = count.hold(skip_width + width)
        count.drop(upsampled + skip)
        held = convolve(held, skip_width + width, widths)
        channels = widths[-1]
    count.multiply(channels, config.classes, 1)
    return count.total(held)
