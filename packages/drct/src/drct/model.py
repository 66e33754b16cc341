"""DRCT: a shallow convolution, groups of densely connected Swin layers, sub-pixel upsampling."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    DropPath,
    FeedForward,
    SuperResolver,
    TokenLinear,
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
from jaxtyping import Float
from torch import Tensor, nn

RESIDUAL_SCALE = 0.2
LAYERS = 5
"""Swin layers in a group."""
SCHEDULE = 6
"""The stochastic depth of group g is that of layer 6g in a plain network of 6-layer groups: what
the authors' configurations come to."""


@dataclass(frozen=True, kw_only=True)
class DRCTConfig:
    """Sizes of the network; the defaults are the published DRCT at x4."""

    scale: int = 4
    """Enlargement: 3 or a power of two."""
    channels: int = 3
    dim: int = 180
    heads: tuple[int, ...] = (6,) * 6
    """Attention heads of each residual dense group; as many entries as groups. The later layers of
    a group have ``h - d % h`` heads at their width d, a rule that the checkpoints depend on."""
    window: int = 16
    """Side of the attention windows in pixels; sides of the input are multiples of it."""
    growth: int = 32
    """Channels that each layer of a group adds to the next one's input."""
    mlp_ratio: float = 2.0
    """Hidden width over width in the first three layers of a group; it is 1 in the last two."""
    features: int = 64
    """Channels during upsampling."""
    shifted: bool = True
    """Every second layer shifts its windows by half. The authors' code stops doing so for good when
    it was built for patches no larger than a window."""
    qkv_bias: bool = True
    embed_norm: bool = True
    positions: int | None = None
    """Side of the learned absolute positions, and then of the only input; no published model has
    them."""
    body_conv: bool = True
    image_range: float = 1.0
    """The network computes on images times this."""
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "channels", "dim", "heads", "window", "growth", "features")
        require_scale(self)
        require(self, "mlp_ratio", self.mlp_ratio > 0, "must be positive")
        require(self, "image_range", self.image_range > 0, "must be positive")
        require_fraction(self, "drop_path")
        require(self, "shifted", not self.shifted or self.window > 1, "a window of 1 can't shift")
        positions = self.positions is None or (
            self.positions > 0 and self.positions % self.window == 0
        )
        require(self, "positions", positions, "must be None or a multiple of window")
        for heads in self.heads:
            for width, inner in zip(self.widths, self.layer_heads(heads), strict=True):
                rule = f"a layer of width {width} gets {inner} heads, which do not divide it"
                require(self, "heads", width % inner == 0, rule)

    @property
    def groups(self) -> int:
        return len(self.heads)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels that each layer of a group sees."""
        return tuple(self.dim + layer * self.growth for layer in range(LAYERS))

    def layer_heads(self, heads: int) -> tuple[int, ...]:
        """Heads of each layer of a group of ``heads``."""
        return heads, *(heads - width % heads for width in self.widths[1:])

    @property
    def drop_paths(self) -> list[float]:
        """Stochastic depth of each group."""
        last = SCHEDULE * self.groups - 1
        return [self.drop_path * SCHEDULE * group / last for group in range(self.groups)]


VARIANTS = {
    f"{name}_x{scale}": DRCTConfig(scale=scale, heads=(6,) * groups)
    for name, groups in (("drct", 6), ("drct_l", 12))
    for scale in (2, 3, 4)
}


class DRCT(SuperResolver):
    """Dense-residual-connected transformer for image super-resolution (Fig. 4)."""

    variants = VARIANTS

    def __init__(self, config: DRCTConfig) -> None:
        super().__init__(config)
        c = config
        self.conv_first = nn.Conv2d(c.channels, c.dim, 3, padding=1)
        self.embed_norm = nn.LayerNorm(c.dim) if c.embed_norm else nn.Identity()
        self.positions = learned_positions(c.positions, c.dim)
        self.groups = nn.ModuleList(
            ResidualDenseGroup(c, heads, drop_path)
            for heads, drop_path in zip(c.heads, c.drop_paths, strict=True)
        )
        self.norm = nn.LayerNorm(c.dim)
        self.body_conv = nn.Conv2d(c.dim, c.dim, 3, padding=1) if c.body_conv else nn.Identity()
        self.before_upsample = nn.Conv2d(c.dim, c.features, 3, padding=1)
        self.upsample = upsampler(c.scale, c.features)
        self.conv_last = nn.Conv2d(c.features, c.channels, 3, padding=1)
        self.apply(initialise_linear)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        image_range: float = 1.0,
        drop_path: float = 0.1,
        shifted: bool | None = None,
    ) -> Self:
        """The model of an authors' checkpoint; every size is read off its tensors.

        Args:
            checkpoint: the file (``params_ema`` is preferred to ``params``) or its state dict.
            image_range: ``img_range`` of the run.
            drop_path: for training on.
            shifted: whether windows shift; read off the stored masks, and true for a file that
                holds weights alone.

        Raises:
            CheckpointError: when the file is not a DRCT.
        """
        from drct.official import convert

        state = read_checkpoint(checkpoint)
        return cls.from_state(
            *convert(state, image_range=image_range, drop_path=drop_path, shifted=shifted)
        )

    @property
    def multiple(self) -> int:
        """What both sides of an input are multiples of."""
        return self.config.window

    @property
    def reach(self) -> int:
        """How many pixels beyond its own window an output can depend on.

        Each layer but the first passes on half a window of what the one before saw, where the
        windows alternate; plain windows after plain ones add nothing. The convolutions before,
        between and after add a pixel each.
        """
        c = self.config
        # Upsampling convolutions see a pixel of what is at least as fine as the input.
        after = c.body_conv + 2 + len(self.upsample) // 2
        shifts = 4 * (c.window - c.window // 2) * c.groups if c.shifted else 0
        return 1 + shifts + c.window - 1 + after


class ResidualDenseGroup(nn.Module):
    """Five Swin layers, each of which sees what all before it added (Eq. 5, Fig. 5)."""

    def __init__(self, config: DRCTConfig, heads: int, drop_path: float) -> None:
        super().__init__()
        c, last = config, LAYERS - 1
        self.layers = nn.ModuleList(
            SwinLayer(
                width,
                inner,
                c.window,
                shift=c.window // 2 if c.shifted and layer % 2 else 0,
                mlp_ratio=c.mlp_ratio if layer < 3 else 1,
                qkv_bias=c.qkv_bias,
                drop_path=drop_path,
            )
            for layer, (width, inner) in enumerate(zip(c.widths, c.layer_heads(heads), strict=True))
        )
        self.adjust = nn.ModuleList(
            TokenLinear(width, c.dim if layer == last else c.growth)
            for layer, width in enumerate(c.widths)
        )

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        dense = x
        for layer, adjust in zip(self.layers[:-1], self.adjust[:-1], strict=True):
            grown = F.leaky_relu(adjust(layer(dense)), 0.2)
            dense = torch.cat([dense, grown], -1)
        return torch.add(x, self.adjust[-1](self.layers[-1](dense)), alpha=RESIDUAL_SCALE)


class SwinLayer(nn.Module):
    """Window attention and a feed-forward network, each behind a norm and around a skip."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        *,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.shift, self.drop_path = shift, DropPath(drop_path)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, (window, window), qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        attended = self.attention(self.norm1(x), (self.shift, self.shift))
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))
