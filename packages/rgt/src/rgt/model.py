"""RGT: groups of local attention in rectangles and of attention to a recursively shrunk map."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    DropPath,
    RectangleAttention,
    SuperResolver,
    TokenLinear,
    attend,
    in_strips,
    initialise_linear,
    pad_heads,
    read_checkpoint,
    require,
    require_choice,
    require_fraction,
    require_positive,
    require_scale,
    token_linear,
    upsampler,
)
from attention_core.windows import ALIGNMENT
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

FEATURES = 64
"""Channels during upsampling."""
SHRINK = 4
"""Sides of a map over those of the next in the recursion."""


@dataclass(frozen=True, kw_only=True)
class RGTConfig:
    """Sizes of the network; the defaults are the published RGT at x4."""

    scale: int = 4
    """Enlargement: 3 or a power of two."""
    channels: int = 3
    dim: int = 180
    depths: tuple[int, ...] = (6,) * 8
    """Blocks of each residual group; they alternate, local attention first."""
    heads: tuple[int, ...] = (6,) * 8
    """Attention heads of each group, half of them for each kind of rectangle."""
    window: tuple[int, int] = (8, 32)
    """Sides of the rectangles: half of the heads see them lying, half standing."""
    mlp_ratio: float = 2.0
    """Hidden width over width, before the gate halves it."""
    key_ratio: float = 0.5
    """Width of the queries and keys of global attention over ``dim``."""
    residual: str = "1conv"
    """What ends a group and the body: one convolution, or three around a bottleneck (``3conv``)."""
    qkv_bias: bool = True
    image_range: float = 1.0
    """The network computes on images times this."""
    drop_path: float = 0.1
    """Stochastic depth of the last block; it grows from 0 with the depth."""

    def __post_init__(self) -> None:
        require_positive(self, "channels", "dim", "depths", "heads", "window")
        require_scale(self)
        rule = f"needs one entry for each of the {len(self.depths)} groups"
        require(self, "heads", len(self.heads) == len(self.depths), rule)
        require(self, "dim", self.dim >= 32, "must be at least 32, for positions need a channel")
        for heads in self.heads:
            require(self, "heads", heads % 2 == 0, f"{heads} is odd, but half see lying rectangles")
            rule = f"{heads} heads do not divide dim={self.dim} and key width {self.key_dim}"
            fits = self.dim % heads == 0 and self.key_dim % heads == 0 and self.key_dim > 0
            require(self, "heads", fits, rule)
        even = all(side % 2 == 0 for side in self.window)
        require(self, "window", even, "both sides must be even, for they shift by half")
        hidden = self.dim * self.mlp_ratio
        require(
            self, "mlp_ratio", hidden >= 2 and int(hidden) % 2 == 0, "hidden width must be even"
        )
        require(self, "image_range", self.image_range > 0, "must be positive")
        require_choice(self, "residual", ("1conv", "3conv"))
        require_fraction(self, "drop_path")

    @property
    def key_dim(self) -> int:
        """Channels of the queries and keys of global attention."""
        return int(self.dim * self.key_ratio)


VARIANTS = {
    f"{name}_x{scale}": RGTConfig(scale=scale, depths=(6,) * groups, heads=(6,) * groups)
    for name, groups in (("rgt_s", 6), ("rgt", 8))
    for scale in (2, 3, 4)
}


class RGT(SuperResolver):
    """Recursive generalization transformer for image super-resolution (Fig. 2).

    Images of any size. How often the recursion shrinks the map that global attention looks at
    depends on the longer side, and on whether the network is in training: see :func:`recursions`.
    """

    variants = VARIANTS

    def __init__(self, config: RGTConfig) -> None:
        super().__init__(config)
        c = config
        self.conv_first = nn.Conv2d(c.channels, c.dim, 3, padding=1)
        self.embed_norm = nn.LayerNorm(c.dim)
        rates = iter(torch.linspace(0, c.drop_path, sum(c.depths), device="cpu").tolist())
        self.groups = nn.ModuleList(
            ResidualGroup(c, number, [next(rates) for _ in range(depth)])
            for number, depth in enumerate(c.depths)
        )
        self.norm = nn.LayerNorm(c.dim)
        self.body_conv = residual_conv(c)
        self.before_upsample = nn.Conv2d(c.dim, FEATURES, 3, padding=1)
        self.upsample = upsampler(c.scale, FEATURES)
        self.conv_last = nn.Conv2d(FEATURES, c.channels, 3, padding=1)
        self.apply(initialise_linear)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        window: tuple[int, int] | None = None,
        key_ratio: float | None = None,
        image_range: float = 1.0,
        drop_path: float = 0.1,
    ) -> Self:
        """The model of an authors' checkpoint; every size is read off its tensors.

        Args:
            checkpoint: the file (``params_ema`` is preferred to ``params``) or its state dict.
            window: ``split_size`` of the run; read off the stored offsets, so that only a file
                which holds weights alone needs it.
            key_ratio: ``c_ratio`` of the run; the ratio of the widths by default.
            image_range: ``img_range`` of the run.
            drop_path: for training on.

        Raises:
            CheckpointError: when the file is not an RGT, or does not tell its window.
        """
        from rgt.official import convert

        return cls.from_state(
            *convert(
                read_checkpoint(checkpoint),
                window=window,
                key_ratio=key_ratio,
                image_range=image_range,
                drop_path=drop_path,
            )
        )


class ResidualGroup(nn.Module):
    """Blocks of local and of global attention in turn, and a convolution around a skip."""

    def __init__(self, config: RGTConfig, number: int, drop_paths: list[float]) -> None:
        super().__init__()
        heads = config.heads[number]
        # Every second local block shifts, from the second on in even groups, the first in odd ones.
        first = 0 if number % 2 else 2
        self.blocks = nn.ModuleList(
            Block(config, GlobalAttention(config, heads), drop_path)
            if index % 2
            else Block(config, LocalAttention(config, heads, index % 4 == first), drop_path)
            for index, drop_path in enumerate(drop_paths)
        )
        self.conv = residual_conv(config)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        deep = x
        for block in self.blocks:
            deep = block(deep)
        deep = self.conv(rearrange(deep, "b h w dim -> b dim h w"))
        return x + rearrange(deep, "b dim h w -> b h w dim")


class Block(nn.Module):
    """Attention and a gated feed-forward network, and the block's input added once more.

    That last sum, with a learned weight per channel, is the hybrid adaptive integration (Eq. 9).
    """

    def __init__(self, config: RGTConfig, attention: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = GatedMLP(config.dim, int(config.dim * config.mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gamma = nn.Parameter(torch.full((config.dim,), 1e-4))

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        y = x + self.drop_path(self.attention(self.norm1(x)))
        y = y + self.drop_path(self.mlp(self.norm2(y)))
        return torch.addcmul(y, x, self.gamma)


class LocalAttention(RectangleAttention):
    """L-SA: attention in rectangles, with or without a shift by half (Sec. 3.2)."""

    def __init__(self, config: RGTConfig, heads: int, shifted: bool) -> None:
        super().__init__(
            config.dim, heads, config.window, qkv_bias=config.qkv_bias, shifted=shifted
        )


class GlobalAttention(nn.Module):
    """RG-SA: every pixel attends to a map that the recursion made small (Eq. 3 to 7).

    The same strided convolution is applied again and again, so that images of any size end in a map
    of about the same size. ``alignment`` is as in ``WindowAttention``.
    """

    def __init__(self, config: RGTConfig, heads: int) -> None:
        super().__init__()
        dim, keys = config.dim, config.key_dim
        self.heads, self.scale = heads, (dim // heads * config.key_ratio) ** -0.5
        self.alignment = ALIGNMENT
        self.reduce = nn.Conv2d(dim, dim, SHRINK, stride=SHRINK, groups=dim)
        self.spread = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.narrow = TokenLinear(dim, keys)
        self.norm = nn.LayerNorm(keys)
        self.query = nn.Linear(dim, keys, bias=config.qkv_bias)
        self.key = nn.Linear(keys, keys, bias=config.qkv_bias)
        self.value = TokenLinear(keys, dim, bias=config.qkv_bias)
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = TokenLinear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        small = self.generalise(x)
        value = rearrange(self.value(small), "b h w dim -> b dim h w")
        value = rearrange(value + self.position(value), "b (n d) h w -> b n (h w) d", n=self.heads)
        query, key = self._heads(self.query, x), self._heads(self.key, small)
        attended = attend(query, key, value, scale=self.scale)
        return self.proj(rearrange(attended, "b n (h w) d -> b h w (n d)", h=x.shape[1]))

    def generalise(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b small_h small_w keys"]:
        """The map that stands for the image: recursion, mixing, fewer channels (Eq. 3 and 4)."""
        small = rearrange(x, "b h w dim -> b dim h w")
        for _ in range(recursions(x.shape[1], x.shape[2], training=self.training)):
            small = self.reduce(small)
        small = rearrange(self.spread(small), "b dim h w -> b h w dim")
        return F.gelu(self.norm(self.narrow(small)))

    def _heads(
        self, linear: nn.Linear, x: Float[Tensor, "b h w dims"]
    ) -> Float[Tensor, "b heads hw dim"]:
        """Queries or keys, by zeros as wide as the values where a fused kernel asks for that."""
        keys, dim = (len(layer.weight) // self.heads for layer in (linear, self.proj))
        extra = max(dim - keys, 0) if self.alignment > 1 else 0
        weight = pad_heads(linear.weight, keys, extra)
        offset = None if linear.bias is None else pad_heads(linear.bias, keys, extra)
        headed = token_linear(x, weight, offset)
        return rearrange(headed, "b h w (n d) -> b n (h w) d", n=self.heads)


class GatedMLP(nn.Module):
    """A feed-forward network whose one half, mixed over the neighbours, multiplies the other."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden // 2)
        self.conv = nn.Conv2d(hidden // 2, hidden // 2, 3, padding=1, groups=hidden // 2)
        self.fc2 = TokenLinear(hidden // 2, dim)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        return in_strips(self._apply_layers, x, width=self.fc1.out_features, halo=1)

    def _apply_layers(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        # Two products instead of one: a half of its result would have to be copied to be normed.
        halves = zip(self.fc1.weight.chunk(2), self.fc1.bias.chunk(2), strict=True)
        passed, gate = (F.gelu(token_linear(x, *half)) for half in halves)
        gate = self.conv(rearrange(self.norm(gate), "b h w dim -> b dim h w"))
        return self.fc2(passed * rearrange(gate, "b dim h w -> b h w dim"))


def recursions(height: int, width: int, *, training: bool) -> int:
    """How often the map is shrunk: four times smaller sides each time.

    In training until the longer side is below 16, in evaluation below 64 but at least twice: the
    authors train on 64 pixels. Where the shorter side would vanish (the authors' code fails there)
    it stops before.
    """
    longer, shorter = max(height, width) // (4 if training else 16), min(height, width)
    times = 0
    while longer >= SHRINK:
        longer, times = longer // SHRINK, times + 1
    times = times if training else max(times, 2)
    while times and SHRINK**times > shorter:
        times -= 1
    return times


def residual_conv(config: RGTConfig) -> nn.Module:
    """A 3x3 convolution, or two around a 1x1 of a quarter of the channels."""
    dim, inner = config.dim, config.dim // 4
    if config.residual == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, inner, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(inner, inner, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(inner, dim, 3, padding=1),
    )
