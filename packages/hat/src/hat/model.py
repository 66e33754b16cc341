"""HAT: a shallow convolution, residual hybrid attention groups, sub-pixel upsampling."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from attention_core import (
    Checkpoint,
    DropPath,
    FeedForward,
    SuperResolver,
    WindowAttention,
    initialise_linear,
    learned_positions,
    read_checkpoint,
    require,
    require_fraction,
    require_positive,
    require_scale,
    upsampler,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hat.overlap import OverlappingCrossAttention


@dataclass(frozen=True, kw_only=True)
class HATConfig:
    """Sizes of the network; the defaults are HAT's (Sec. 4.1)."""

    scale: int
    """Enlargement: 3, or a power of two; 1 restores without enlarging (noise, JPEG artefacts)."""
    channels: int = 3
    """Of the image: 3 for colour; others have no mean colour taken off."""
    dim: int = 180
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    """Hybrid attention blocks of each group."""
    heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    """Of each group."""
    window: int = 16
    overlap: int = 4
    """Pixels by which a window of keys exceeds its window of queries on every side (the paper's
    ratio 0.5: windows of 24 for 16)."""
    compress: int = 3
    """What the convolutions beside the attention divide the width by (beta)."""
    squeeze: int = 30
    """What their channel attention divides the width by."""
    conv_scale: float = 0.01
    """Weight of the convolutions beside the attention (alpha)."""
    mlp_ratio: float = 2.0
    features: int = 64
    """Channels of the upsampling."""
    shifted: bool = True
    """Whether every other block shifts its windows by half; the authors' code doesn't for a
    training patch of a single window."""
    qkv_bias: bool = True
    embed_norm: bool = True
    positions: int | None = None
    """Side of the training patch whose absolute positions are learned; fixes the input's size."""
    body_conv: bool = True
    """A 3 x 3 convolution at the end of each group and after the last."""
    image_range: float = 1.0
    """What a white pixel is inside."""
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "channels", "dim", "depths", "heads", "window", "features")
        require_positive(self, "compress", "squeeze")
        require_scale(self)
        same = len(self.depths) == len(self.heads)
        require(self, "heads", same, f"must have an entry for each of depths={self.depths}")
        divides = all(self.dim % heads == 0 for heads in self.heads)
        require(self, "heads", divides, f"must divide dim={self.dim}")
        for field in ("compress", "squeeze"):
            width = f"must leave a channel of dim={self.dim}"
            require(self, field, getattr(self, field) <= self.dim, width)
        require(self, "overlap", self.overlap >= 0, "must be at least 0")
        require(self, "mlp_ratio", self.hidden > 0, "must be positive")
        require(self, "image_range", self.image_range > 0, "must be positive")
        require_fraction(self, "drop_path")
        require(self, "shifted", not self.shifted or self.window > 1, "a window of 1 can't shift")
        tiled = self.positions is None or (self.positions > 0 and self.positions % self.window == 0)
        require(self, "positions", tiled, f"must be None or a multiple of window={self.window}")

    @property
    def hidden(self) -> int:
        """Width of the feed-forward networks."""
        return int(self.dim * self.mlp_ratio + 1e-6)  # a ratio of two whole numbers is rounded

    @property
    def drop_paths(self) -> tuple[tuple[float, ...], ...]:
        """Rate of each block of each group, growing evenly through the depth."""
        step = self.drop_path / max(1, sum(self.depths) - 1)
        starts = accumulate(self.depths, initial=0)
        return tuple(
            tuple(step * block for block in range(start, start + depth))
            for start, depth in zip(starts, self.depths, strict=False)
        )


def _variants(scale: int) -> dict[str, HATConfig]:
    return {
        f"hat_s_x{scale}": HATConfig(scale=scale, dim=144, compress=24, squeeze=24),
        f"hat_x{scale}": HATConfig(scale=scale),
        f"hat_l_x{scale}": HATConfig(scale=scale, depths=(6,) * 12, heads=(6,) * 12),
    }


VARIANTS = {name: config for scale in (2, 3, 4) for name, config in _variants(scale).items()}


class HAT(SuperResolver):
    """Hybrid attention transformer for image restoration (Fig. 4)."""

    variants = VARIANTS

    def __init__(self, config: HATConfig) -> None:
        super().__init__(config)
        c = config
        self.conv_first = nn.Conv2d(c.channels, c.dim, 3, padding=1)
        self.embed_norm = nn.LayerNorm(c.dim) if c.embed_norm else nn.Identity()
        self.positions = learned_positions(c.positions, c.dim)
        self.groups = nn.ModuleList(
            ResidualHybridAttentionGroup(c, heads, rates)
            for heads, rates in zip(c.heads, c.drop_paths, strict=True)
        )
        self.norm = nn.LayerNorm(c.dim)
        self.body_conv = body_conv(c)
        self.before_upsample = nn.Conv2d(c.dim, c.features, 3, padding=1)
        self.upsample = upsampler(c.scale, c.features)
        self.conv_last = nn.Conv2d(c.features, c.channels, 3, padding=1)
        self.apply(initialise_linear)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        conv_scale: float = 0.01,
        image_range: float = 1.0,
        drop_path: float = 0.1,
        shifted: bool = True,
    ) -> Self:
        """The model of an authors' checkpoint; every size is read off its tensors.

        Args:
            checkpoint: the file (``params_ema`` is preferred to ``params``) or its state dict.
            conv_scale: weight of the convolutions beside the attention.
            image_range: ``img_range`` of the run.
            drop_path: for training on.
            shifted: false for a network trained on patches of a single window.

        Raises:
            CheckpointError: when the file is not a HAT.
        """
        from hat.official import convert

        config, state = convert(
            read_checkpoint(checkpoint),
            conv_scale=conv_scale,
            image_range=image_range,
            drop_path=drop_path,
            shifted=shifted,
        )
        return cls.from_state(config, state)

    @property
    def multiple(self) -> int:
        """What both sides of an input are multiples of."""
        return self.config.window


class ResidualHybridAttentionGroup(nn.Module):
    """Hybrid attention blocks, one overlapping cross-attention block, a convolution (RHAG)."""

    def __init__(self, config: HATConfig, heads: int, drop_paths: tuple[float, ...]) -> None:
        super().__init__()
        shift = config.window // 2 if config.shifted else 0
        self.blocks = nn.ModuleList(
            HybridAttentionBlock(config, heads, shift=shift * (number % 2), drop_path=rate)
            for number, rate in enumerate(drop_paths)
        )
        self.overlap = OverlappingCrossAttentionBlock(config, heads)
        self.conv = body_conv(config)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        y = x
        for block in self.blocks:
            y = block(y)
        y = rearrange(self.overlap(y), "b h w dim -> b dim h w")
        return rearrange(self.conv(y), "b dim h w -> b h w dim") + x


class HybridAttentionBlock(nn.Module):
    """Window attention and channel attention side by side, then a feed-forward network (HAB)."""

    def __init__(self, config: HATConfig, heads: int, *, shift: int, drop_path: float) -> None:
        super().__init__()
        c = config
        self.shift, self.conv_scale = shift, c.conv_scale
        self.norm1 = nn.LayerNorm(c.dim)
        self.attention = WindowAttention(c.dim, heads, (c.window, c.window), qkv_bias=c.qkv_bias)
        self.conv = ChannelAttentionBlock(c.dim, c.compress, c.squeeze)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = FeedForward(c.dim, c.hidden)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        n = self.norm1(x)
        attended = self.attention(n, (self.shift, self.shift))
        x = torch.addcmul(x + self.drop_path(attended), *self.conv(n), value=self.conv_scale)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ChannelAttentionBlock(nn.Module):
    """Two convolutions through fewer channels, and a gate of each channel from its mean (CAB)."""

    def __init__(self, dim: int, compress: int, squeeze: int) -> None:
        super().__init__()
        self.compress = nn.Conv2d(dim, dim // compress, 3, padding=1)
        self.expand = nn.Conv2d(dim // compress, dim, 3, padding=1)
        self.squeeze = nn.Conv2d(dim, dim // squeeze, 1)
        self.excite = nn.Conv2d(dim // squeeze, dim, 1)

    def forward(
        self, x: Float[Tensor, "b h w dim"]
    ) -> tuple[Float[Tensor, "b h w dim"], Float[Tensor, "b 1 1 dim"]]:
        """The convolved map and its gate; their product is the block's output."""
        y = rearrange(x, "b h w dim -> b dim h w")
        y = self.expand(nn.functional.gelu(self.compress(y)))
        gate = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return rearrange(y, "b dim h w -> b h w dim"), rearrange(gate, "b dim h w -> b h w dim")


class OverlappingCrossAttentionBlock(nn.Module):
    """Overlapping cross-attention and a feed-forward network (OCAB)."""

    def __init__(self, config: HATConfig, heads: int) -> None:
        super().__init__()
        c = config
        self.norm1 = nn.LayerNorm(c.dim)
        self.attention = OverlappingCrossAttention(
            c.dim, heads, c.window, c.overlap, qkv_bias=c.qkv_bias
        )
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = FeedForward(c.dim, c.hidden)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def body_conv(config: HATConfig) -> nn.Module:
    """What a group, and the body, end with."""
    return nn.Conv2d(config.dim, config.dim, 3, padding=1) if config.body_conv else nn.Identity()
