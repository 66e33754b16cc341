"""CRAFT: a shallow convolution, cross-refinement fusion groups, one sub-pixel convolution."""

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    FeedForward,
    RectangleAttention,
    SuperResolver,
    TokenConv,
    convolve,
    initialise_linear,
    read_checkpoint,
    require,
    require_positive,
)
from jaxtyping import Float
from torch import Tensor, nn

from craft.fusion import HybridFusionBlock


@dataclass(frozen=True, kw_only=True)
class CRAFTConfig:
    """Sizes of the network; the defaults are the published ones."""

    scale: int
    channels: int = 3
    """Of the image: 3 for colour; others have no mean colour taken off."""
    dim: int = 48
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Cross-refinement fusion blocks of each group."""
    heads: tuple[int, ...] = (6, 6, 6, 6)
    """Of each group; one half looks at lying rectangles, the other at standing ones."""
    window: tuple[int, int] = (4, 16)
    """Sides of the rectangles."""
    mlp_ratio: float = 2.0
    fusion_ratio: float = 2.66
    """Of the gated feed-forward network of the fusion blocks."""
    qkv_bias: bool = True
    body_conv: bool = True
    """A 3 x 3 convolution after the last group."""
    image_range: float = 1.0
    """What a white pixel is inside."""

    def __post_init__(self) -> None:
        require_positive(self, "scale", "channels", "depths", "heads", "window")
        # From 32 channels on the network behind the position bias has one of its own.
        require(self, "dim", self.dim >= 32 and self.dim % 2 == 0, "must be even and at least 32")
        same = len(self.depths) == len(self.heads)
        require(self, "heads", same, f"must have an entry for each of depths={self.depths}")
        divides = all(heads % 2 == 0 and self.dim % heads == 0 for heads in self.heads)
        require(self, "heads", divides, f"must be even and divide dim={self.dim}")
        require(self, "mlp_ratio", self.hidden > 0, "must be positive")
        require(self, "fusion_ratio", self.fusion_hidden > 0, "must be positive")
        require(self, "image_range", self.image_range > 0, "must be positive")

    @property
    def hidden(self) -> int:
        """Width of the feed-forward networks."""
        return int(self.dim * self.mlp_ratio + 1e-6)  # a ratio of two whole numbers is rounded

    @property
    def fusion_hidden(self) -> int:
        """Width of the feed-forward networks of the fusion blocks."""
        return int(self.dim * self.fusion_ratio + 1e-6)


VARIANTS = {f"craft_x{scale}": CRAFTConfig(scale=scale) for scale in (2, 3, 4)}


class CRAFT(SuperResolver):
    """Cross-refinement adaptive feature modulation transformer for super-resolution (Fig. 3)."""

    variants = VARIANTS

    def __init__(self, config: CRAFTConfig) -> None:
        super().__init__(config)
        c = config
        self.conv_first = nn.Conv2d(c.channels, c.dim, 3, padding=1)
        self.embed_norm = nn.Identity()
        self.groups = nn.ModuleList(
            ResidualCrossRefinementFusionGroup(c, depth, heads)
            for depth, heads in zip(c.depths, c.heads, strict=True)
        )
        self.norm = nn.LayerNorm(c.dim)
        self.body_conv = nn.Conv2d(c.dim, c.dim, 3, padding=1) if c.body_conv else nn.Identity()
        self.upsample = nn.Sequential(
            nn.Conv2d(c.dim, c.scale**2 * c.channels, 3, padding=1), nn.PixelShuffle(c.scale)
        )
        self.apply(initialise_linear)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        window: tuple[int, int] | None = None,
        image_range: float = 1.0,
    ) -> Self:
        """The model of an authors' checkpoint; every size is read off its tensors.

        Args:
            checkpoint: the file (``params_ema`` is preferred to ``params``) or its state dict.
            window: sides of the rectangles; read off the stored offsets, and 4 and 16, the only
                published ones, for a file that holds weights alone.
            image_range: ``img_range`` of the run.

        Raises:
            CheckpointError: when the file is not a CRAFT.
        """
        from craft.official import convert

        state = read_checkpoint(checkpoint)
        return cls.from_state(*convert(state, window=window, image_range=image_range))

    def reconstruct(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b c sh sw"]:
        return self.upsample(x)

    @property
    def multiple(self) -> int:
        """What both sides of an input are multiples of."""
        return math.lcm(*self.config.window)


class ResidualCrossRefinementFusionGroup(nn.Module):
    """Cross-refinement fusion blocks and a convolution (RCRFG)."""

    def __init__(self, config: CRAFTConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossRefinementFusionBlock(config, heads) for _ in range(depth))
        self.conv = nn.Conv2d(config.dim, config.dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        y = x
        for block in self.blocks:
            y = block(y)
        return convolve(self.conv, y) + x


class CrossRefinementFusionBlock(nn.Module):
    """Global structure by attention, high frequencies beside it, and what fuses them (CRFB)."""

    def __init__(self, config: CRAFTConfig, heads: int) -> None:
        super().__init__()
        c = config
        self.rectangles = nn.Sequential(
            ShiftRectangleWindowAttentionBlock(c, heads, shifted=False),
            ShiftRectangleWindowAttentionBlock(c, heads, shifted=True),
        )
        self.high = HighFrequencyEnhancementBlock(c.dim)
        self.fusion = HybridFusionBlock(c.dim, heads, c.fusion_hidden)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        return self.fusion(self.rectangles(x), self.high(x))


class ShiftRectangleWindowAttentionBlock(nn.Module):
    """Attention in lying and standing rectangles, then a feed-forward network (SRWAB).

    What a shift brings together from opposite borders is not hidden from each other: the authors'
    code has no mask.
    """

    def __init__(self, config: CRAFTConfig, heads: int, *, shifted: bool) -> None:
        super().__init__()
        c = config
        self.norm1 = nn.LayerNorm(c.dim)
        self.attention = RectangleAttention(
            c.dim, heads, c.window, qkv_bias=c.qkv_bias, shifted=shifted, masked=False
        )
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = FeedForward(c.dim, c.hidden)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class HighFrequencyEnhancementBlock(nn.Module):
    """Half of the channels through a convolution, half through a maximum filter (HFERB)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim // 2, dim // 2, 3, padding=1)
        self.linear = TokenConv(dim // 2, dim // 2)
        self.merge = TokenConv(dim, dim)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        local, peaks = x.chunk(2, -1)
        local = convolve(self.conv, local)
        peaks = self.linear(convolve(nn.MaxPool2d(3, 1, 1), peaks))
        return x + self.merge(F.gelu(torch.cat([local, peaks], -1)))
