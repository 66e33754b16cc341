"""RAT: a U-shaped network of NAF blocks around layers of region and window attention."""

import math
import warnings
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    FeedForward,
    PaperModel,
    TokenLinear,
    convolve,
    read_checkpoint,
    require,
    require_positive,
)
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rat.attention import RegionAttention, Regions, WindowAttention, group_by_region

EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class RATConfig:
    """Sizes of the network; the defaults are the published one for PET and CT."""

    scale: int = 1
    """The image is enlarged this many times, bilinearly, before it is restored."""
    channels: int = 1
    width: int = 64
    """Channels at full resolution; each level doubles them and halves the sides."""
    encoder_depths: tuple[int, ...] = (2, 2)
    """NAF blocks of each level on the way down."""
    decoder_depths: tuple[int, ...] = (2, 2)
    """And on the way up, the coarsest level first."""
    blocks: int = 4
    """Region attention blocks between them."""
    layers: int = 3
    """Layers of a block."""
    heads: int = 8
    window: int = 4
    """Side of the attention windows, in pixels of the coarsest level."""
    mlp_ratio: float = 2.0

    def __post_init__(self) -> None:
        require_positive(self, "scale", "channels", "width", "layers", "heads", "window")
        for field in ("encoder_depths", "decoder_depths"):
            depths = getattr(self, field)
            whole = bool(depths) and all(isinstance(depth, int) and depth >= 0 for depth in depths)
            require(self, field, whole, "must be integers of at least 0, one a level")
        same = len(self.decoder_depths) == len(self.encoder_depths)
        rule = f"must have as many levels as encoder_depths, {len(self.encoder_depths)}"
        require(self, "decoder_depths", same, rule)
        require(self, "blocks", self.blocks >= 0, "must be at least 0")
        require(self, "mlp_ratio", int(self.dim * self.mlp_ratio) >= 1, "leaves no hidden channel")
        rule = f"must divide the width of the coarsest level, {self.dim}"
        require(self, "heads", self.dim % self.heads == 0, rule)

    @property
    def reduction(self) -> int:
        """How many times the sides shrink down to the coarsest level."""
        return 2 ** len(self.encoder_depths)

    @property
    def dim(self) -> int:
        """Channels of the coarsest level."""
        return self.width * self.reduction


VARIANTS = {"rat": RATConfig(), "rat_x4": RATConfig(scale=4, channels=3)}


class RAT(PaperModel):
    """Region attention transformer for medical image restoration."""

    variants = VARIANTS

    def __init__(self, config: RATConfig) -> None:
        super().__init__(config)
        c, dim = config, config.width
        self.embed = nn.Conv2d(c.channels, dim, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for depth in c.encoder_depths:
            self.encoders.append(nn.Sequential(*(NAFBlock(dim) for _ in range(depth))))
            self.downs.append(TokenLinear(4 * dim, 2 * dim))
            dim *= 2
        self.blocks = nn.ModuleList(RegionBlock(c) for _ in range(c.blocks))
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for depth in c.decoder_depths:
            self.ups.append(TokenLinear(dim, 2 * dim, bias=False))
            dim //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(dim) for _ in range(depth))))
        self.output = nn.Conv2d(dim, c.channels, 3, padding=1)

    @classmethod
    def from_official(
        cls, checkpoint: Checkpoint, *, scale: int = 1, heads: int = 8, window: int = 4
    ) -> Self:
        """The model of an authors' checkpoint; the other sizes are read off its tensors.

        Args:
            checkpoint: ``model_best.pth`` or its state dict, with or without ``module.``.
            scale: of the run: 4 for super-resolution.
            heads: of both attentions.
            window: side of the windows.

        Raises:
            CheckpointError: when the file is not a RAT.
        """
        from rat.official import convert

        state = read_checkpoint(checkpoint)
        return cls.from_state(*convert(state, scale=scale, heads=heads, window=window))

    @property
    def scale(self) -> int:
        return self.config.scale

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def multiple(self) -> int:
        """What sides are padded to a multiple of."""
        whole = self.config.reduction * self.config.window
        return whole // math.gcd(whole, self.config.scale)

    def forward(
        self, image: Shaped[Tensor, "b c h w"], regions: Shaped[Tensor, "..."] | None = None
    ) -> Float[Tensor, "b c sh sw"]:
        """Restore images in [0, 1]; the result is not clamped.

        Args:
            image: of any size: mirrored to a multiple of 16 and cut again.
            regions: a label for each pixel, [b, h, w] or one map for all, [h, w], of the
                enlarged size. Labels are whole numbers of at least 0, of any type; only which are
                equal matters. Without a map the whole image is one region.

        Raises:
            ValueError: for an empty or non-finite image, other channels, a map of another size or
                with labels that are negative or not whole.
            TypeError: for an image of integers.
        """
        self.check(image)
        batch, scale, (height, width) = len(image), self.scale, image.shape[2:]
        if regions is None:
            warnings.warn("no regions given: the whole image is one", stacklevel=2)
            regions = image.new_zeros(height * scale, width * scale)
        check_regions(regions, (batch, height * scale, width * scale))
        sides = [side + -side % self.multiple for side in (height, width)]
        for axis, side in zip((2, 3), sides, strict=True):
            image = _continue(image, axis, side, mirror=True)
            regions = _continue(regions, axis - 4, side * scale, mirror=False)
        if scale > 1:
            image = F.interpolate(image, scale_factor=scale, mode="bilinear")

        step = self.config.reduction
        labels = regions.expand(batch, *regions.shape[-2:])[:, ::step, ::step].flatten(1)
        restored = image + self.residual(image, group_by_region(labels))
        return restored[..., : height * scale, : width * scale]

    def residual(
        self, image: Float[Tensor, "b c h w"], regions: Regions
    ) -> Float[Tensor, "b c h w"]:
        """What is added to an image of whole windows."""
        x = rearrange(self.embed(image), "b dim h w -> b h w dim").contiguous()
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(rearrange(x, "b (h y) (w x) dim -> b h w (dim y x)", y=2, x=2))
        coarse = x
        for block in self.blocks:
            x = block(x, regions)
        x = x + coarse
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = rearrange(up(x), "b h w (dim y x) -> b (h y) (w x) dim", y=2, x=2)
            x = decoder(x + skips.pop())
        return self.output(rearrange(x, "b h w dim -> b dim h w"))

    def check(self, image: Tensor) -> None:
        """Raise for an image that the network can't take."""
        if not image.is_floating_point():
            raise TypeError(f"expects floating point in [0, 1], got {image.dtype}")
        if not image.numel():
            raise ValueError(f"an empty image: {list(image.shape)}")
        if image.shape[1] != self.channels:
            raise ValueError(
                f"the image has {image.shape[1]} channels, the model takes {self.channels}"
            )
        if _readable(image) and not image.isfinite().all():
            raise ValueError("the image holds NaN or infinite values")


class NAFBlock(nn.Module):
    """Gated depth-wise convolution with channel attention, then a gated feed-forward network.

    NAFNet's block (Chen et al., ECCV 2022); both branches start switched off.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPSILON)
        self.expand = TokenLinear(dim, 2 * dim)
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim)
        self.channel_attention = nn.Linear(dim, dim)
        self.project = TokenLinear(dim, dim)
        self.scale = nn.Parameter(torch.zeros(dim))
        self.ffn_norm = nn.LayerNorm(dim, EPSILON)
        self.ffn_expand = TokenLinear(dim, 2 * dim)
        self.ffn_project = TokenLinear(dim, dim)
        self.ffn_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        mixed = _gate(convolve(self.depthwise, self.expand(self.norm(x))))
        mixed = mixed * self.channel_attention(mixed.mean((1, 2), keepdim=True))
        x = x + self.scale * self.project(mixed)
        return x + self.ffn_scale * self.ffn_project(_gate(self.ffn_expand(self.ffn_norm(x))))


class RegionBlock(nn.Module):
    """Layers of region and window attention, a convolution, and a skip around them."""

    def __init__(self, config: RATConfig) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(
            RegionLayer(c.dim, c.heads, c.window, c.mlp_ratio) for _ in range(c.layers)
        )
        self.conv = nn.Conv2d(c.dim, c.dim, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b h w dim"], regions: Regions
    ) -> Float[Tensor, "b h w dim"]:
        skip = x
        for layer in self.layers:
            x = layer(x, regions)
        return skip + convolve(self.conv, x)


class RegionLayer(nn.Module):
    """Attention in regions, then in windows, each followed by a feed-forward network.

    Both attentions start switched off: their scales are zero.
    """

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.region_norm = nn.LayerNorm(dim, EPSILON)
        self.region_attention = RegionAttention(dim, heads)
        self.region_scale = nn.Parameter(torch.zeros(dim))
        self.region_ffn_norm = nn.LayerNorm(dim, EPSILON)
        self.region_ffn = FeedForward(dim, hidden)
        self.window_norm = nn.LayerNorm(dim, EPSILON)
        self.window_attention = WindowAttention(dim, heads, window)
        self.window_scale = nn.Parameter(torch.zeros(dim))
        self.window_ffn_norm = nn.LayerNorm(dim, EPSILON)
        self.window_ffn = FeedForward(dim, hidden)

    def forward(
        self, x: Float[Tensor, "b h w dim"], regions: Regions
    ) -> Float[Tensor, "b h w dim"]:
        x = x + self.region_scale * self.region_attention(self.region_norm(x), regions)
        x = x + self.region_ffn(self.region_ffn_norm(x))
        x = x + self.window_scale * self.window_attention(self.window_norm(x))
        return x + self.window_ffn(self.window_ffn_norm(x))


def check_regions(regions: Tensor, shape: tuple[int, int, int]) -> None:
    """Raise ``ValueError`` unless ``regions`` labels images of ``shape`` (batch, height, width)."""
    if tuple(regions.shape) not in (shape, shape[1:]):
        raise ValueError(
            f"a region map of {list(regions.shape)} for restored images of {list(shape)}: it needs "
            "a label for each pixel"
        )
    if _readable(regions):
        least = regions.min().item()
        if not least >= 0:
            raise ValueError(f"a region map with the label {least}: labels are at least 0")
        if regions.is_floating_point() and not regions.eq(regions.round()).all():
            raise ValueError("a region map with labels that are not whole numbers")


def _readable(x: Tensor) -> bool:
    """Whether values may be looked at: not in a graph, nor on the meta device."""
    return not torch.compiler.is_compiling() and x.device.type != "meta"


def _gate(x: Float[Tensor, "*shape twice"]) -> Float[Tensor, "*shape dim"]:
    one, other = x.chunk(2, -1)
    return one * other


def _continue(x: Tensor, axis: int, side: int, *, mirror: bool) -> Tensor:
    """``x`` continued to ``side``: mirrored without its edge, or with its edge repeated."""
    old = x.shape[axis]
    if side == old:
        return x
    index = torch.arange(side, device=x.device)
    if mirror and old > 1:
        index = index % (2 * old - 2)
        index = torch.minimum(index, 2 * old - 2 - index)
    return x.index_select(axis, index.clamp(max=old - 1))
