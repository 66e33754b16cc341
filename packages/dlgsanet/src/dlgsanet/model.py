"""DLGSANet: groups of dynamic convolutions and of sparse attention among channels."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    FeedForward,
    SuperResolver,
    TokenLinear,
    channel_cosines,
    in_strips,
    mix_channels,
    read_checkpoint,
    require,
    require_choice,
    require_positive,
    require_scale,
    upsampler,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dlgsanet.dynamic import dynamic_convolution

FEATURES = 64
"""Channels during upsampling, where it takes several steps."""
ACTIVATIONS = ("relu", "gelu", "sigmoid", "identity", "softmax")
CONVERTER = {2: 96, 3: 72, 4: 48}
"""Scale -> side of the windows that the published models look at in evaluation."""


@dataclass(frozen=True, kw_only=True)
class DLGSANetConfig:
    """Sizes of the network; the defaults are the published DLGSANet-Tiny at x4."""

    scale: int = 4
    """Enlargement: 3 or a power of two where the head takes steps, any whole number else."""
    channels: int = 3
    dim: int = 48
    groups: int = 3
    blocks: int = 3
    """Pairs of a local and a global block in a group."""
    local: bool = True
    """Whether there are local blocks."""
    activation: str | None = "relu"
    """What makes global attention of the logits; ``None`` leaves the global blocks out."""
    dynamic: bool = True
    """Whether local blocks make their kernels; else the kernels are weights."""
    kernel: int = 7
    """Side of the local kernels in pixels, odd."""
    kernel_channels: int = 6
    """Channels that share a kernel; the paper calls their groups heads."""
    heads: int = 6
    """Of global attention."""
    gated: tuple[bool, bool] = (True, True)
    """Whether the feed-forward networks of local and of global blocks are gated."""
    ratios: tuple[float, float] = (2.0, 2.0)
    """Hidden width over width of the two."""
    window: int | None = 48
    """Side of the windows that global attention is computed in during evaluation (in training it
    sees the whole patch); ``None`` for whole images."""
    body_norm: bool = False
    head: str = "direct"
    """``direct``: one convolution and pixel shuffle; ``steps``: features, one per doubling;
    ``same``: an image of the input's size."""
    image_range: float = 1.0
    """The network computes on images times this."""

    def __post_init__(self) -> None:
        sizes = ("channels", "dim", "groups", "blocks", "kernel", "kernel_channels", "heads")
        require_positive(self, "scale", *sizes)
        require_choice(self, "head", ("direct", "steps", "same"))
        if self.head == "steps":
            require_scale(self)
        require(self, "scale", self.head != "same" or self.scale == 1, "must be 1 for head='same'")
        require_choice(self, "activation", (*ACTIVATIONS, None))
        some = self.local or self.activation is not None
        require(self, "local", some, "a network needs local blocks, or an activation for others")
        require(self, "kernel", self.kernel % 2 == 1, "must be odd")
        for field in ("kernel_channels", "heads"):
            fits = self.dim % getattr(self, field) == 0
            require(self, field, fits, f"does not divide dim={self.dim}")
        require(self, "dim", self.dim >= 4, "must be at least 4")
        widths = [int(self.dim * ratio) for ratio in self.ratios]
        require(self, "ratios", min(widths) > 0, "no hidden channels")
        window = self.window is None or self.window >= 1
        require(self, "window", window, "must be None or at least 1")
        require(self, "image_range", self.image_range > 0, "must be positive")


VARIANTS = {
    f"{name}_x{scale}": DLGSANetConfig(
        scale=scale, dim=dim, groups=groups, blocks=blocks, window=CONVERTER[scale]
    )
    for name, dim, groups, blocks in (
        ("dlgsanet_tiny", 48, 3, 3),
        ("dlgsanet_light", 48, 4, 3),
        ("dlgsanet", 90, 6, 4),
    )
    for scale in (2, 3, 4)
}


class DLGSANet(SuperResolver):
    """Dynamic local and global self-attention network for image super-resolution (Fig. 2).

    Images of any size. In evaluation, global attention is computed in windows of about the size of
    a training patch: see :class:`GlobalAttention`.
    """

    variants = VARIANTS

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__(config)
        c = config
        self.conv_first = nn.Conv2d(c.channels, c.dim, 3, padding=1, bias=False)
        self.embed_norm = nn.LayerNorm(c.dim) if c.body_norm else nn.Identity()
        self.groups = nn.ModuleList(ResidualGroup(c) for _ in range(c.groups))
        self.norm = nn.LayerNorm(c.dim) if c.body_norm else nn.Identity()
        self.body_conv = nn.Conv2d(c.dim, c.dim, 3, padding=1)
        if c.head == "steps":
            self.before_upsample = nn.Conv2d(c.dim, FEATURES, 3, padding=1)
            self.upsample = upsampler(c.scale, FEATURES)
        last = FEATURES if c.head == "steps" else c.dim
        factor = c.scale if c.head == "direct" else 1
        self.conv_last = nn.Conv2d(last, factor**2 * c.channels, 3, padding=1)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        activation: str = "relu",
        window: int | str | None = "published",
        image_range: float = 1.0,
    ) -> Self:
        """The model of an authors' checkpoint; every size is read off its tensors.

        Args:
            checkpoint: the file (``params_ema`` is preferred to ``params``) or its state dict.
            activation: of the global blocks: the tensors are the same for all. Files without local
                blocks have ``softmax``.
            window: ``tlc_kernel`` of the run, ``None`` without ``tlc_flag``; by default that of the
                published models, which depends on the scale, and is 48 with ``softmax``.
            image_range: ``img_range`` of the run.

        Raises:
            CheckpointError: when the file is not a DLGSANet.
        """
        from dlgsanet.official import convert

        state = read_checkpoint(checkpoint)
        return cls.from_state(
            *convert(state, activation=activation, window=window, image_range=image_range)
        )

    def reconstruct(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b c sh sw"]:
        if self.config.head == "steps":
            return super().reconstruct(x)
        x = self.conv_last(x)
        return F.pixel_shuffle(x, self.scale) if self.config.head == "direct" else x


class ResidualGroup(nn.Module):
    """Local and global blocks in turn, and a convolution around a skip."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        c = config
        self.blocks = nn.ModuleList()
        for _ in range(c.blocks):
            if c.local:
                self.blocks.append(Block(c, LocalAttention(c), c.gated[0], c.ratios[0]))
            if c.activation is not None:
                self.blocks.append(Block(c, GlobalAttention(c), c.gated[1], c.ratios[1]))
        self.conv = nn.Conv2d(c.dim, c.dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        deep = x
        for block in self.blocks:
            deep = block(deep)
        deep = self.conv(rearrange(deep, "b h w dim -> b dim h w"))
        return x + rearrange(deep, "b dim h w -> b h w dim")


class Block(nn.Module):
    """Attention and a feed-forward network, each behind a norm and around a skip."""

    def __init__(
        self, config: DLGSANetConfig, attention: nn.Module, gated: bool, ratio: float
    ) -> None:
        super().__init__()
        hidden = int(config.dim * ratio)
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(config.dim)
        feed_forward = GatedFeedForward if gated else FeedForward
        self.ffn = feed_forward(config.dim, hidden)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class LocalAttention(nn.Module):
    """MHDLSA: each position makes the kernels that it gathers its neighbours with (Sec. 3.2)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        c, side = config, config.kernel
        self.enter = TokenLinear(c.dim, c.dim, bias=False)
        self.filter = dynamic_convolution
        if c.dynamic:
            self.kernels: KernelMaker | None = KernelMaker(c)
        else:
            self.kernels = None
            self.static = nn.Conv2d(c.dim, c.dim, side, padding=side // 2, groups=c.dim)
        self.leave = TokenLinear(c.dim, c.dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        image = rearrange(self.enter(x), "b h w dim -> b dim h w")
        if self.kernels is None:
            gathered = self.static(image)
        else:
            gathered = self.filter(image, self.kernels(image))
        return self.leave(rearrange(gathered, "b dim h w -> b h w dim"))


class KernelMaker(nn.Module):
    """Kernels for every position: narrow, look around, one linear map (Eq. 2)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        c, side, narrow = config, config.kernel, config.dim // 4
        self.kernel_groups = c.dim // c.kernel_channels
        self.narrow = nn.Conv2d(c.dim, narrow, 1)
        self.around = nn.Conv2d(narrow, narrow, side, padding=side // 2, groups=narrow)
        self.widen = nn.Linear(narrow, side**2 * self.kernel_groups)

    def forward(self, image: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b groups taps h w"]:
        seen = self.around(self.narrow(image))
        # Channels first, as the convolution goes over them: a product that needs no transposing,
        # with the bias as what a channel of ones is multiplied by.
        seen_and_ones = F.pad(seen.flatten(2), (0, 0, 0, 1), value=1)
        made = torch.cat([self.widen.weight, self.widen.bias[:, None]], 1) @ seen_and_ones
        split = "b (groups taps) (h w) -> b groups taps h w"
        return rearrange(made, split, groups=self.kernel_groups, h=seen.shape[2])


class GlobalAttention(nn.Module):
    """SparseGSA: attention among the channels of a head, without softmax (Eq. 5 to 7).

    ReLU leaves out what is not alike, and nothing is normalised. In evaluation the map is cut into
    windows that overlap where they must, and results are averaged (test-time local converter).
    """

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.activation, self.window = config.activation, config.window
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))
        self.qkv = TokenLinear(dim, 3 * dim, bias=False)
        self.around = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        qkv = self.around(rearrange(self.qkv(x), "b h w dims -> b dims h w"))
        qkv = rearrange(qkv, "b dims h w -> b h w dims")
        if self.training or self.window is None or max(x.shape[1:3]) <= self.window:
            return self.attend(qkv)
        return self.attend_windows(qkv, self.window)

    def attend_windows(
        self, qkv: Float[Tensor, "b h w dims"], window: int
    ) -> Float[Tensor, "b h w dim"]:
        """The mean of what :meth:`attend` gives for the windows that cover each position."""
        size = qkv.shape[1], qkv.shape[2]
        tops, lefts = (window_starts(side, window) for side in size)
        pieces = [qkv[:, y : y + window, x : x + window] for y in tops for x in lefts]
        mean = rearrange(
            self.attend(torch.stack(pieces, 1).flatten(0, 1)),
            "(b top left) y x dim -> b (top y) (left x) dim", top=len(tops), left=len(lefts),
        )  # fmt: skip
        for axis, starts, side in ((1, tops, size[0]), (2, lefts, size[1])):
            inside = torch.arange(min(side, window), device=qkv.device)
            places = (torch.tensor(starts, device=qkv.device)[:, None] + inside).flatten()
            shape = (*mean.shape[:axis], side, *mean.shape[axis + 1 :])
            total = mean.new_zeros(shape).index_add(axis, places, mean)
            count = mean.new_zeros(side).index_add(0, places, mean.new_ones(len(places)))
            mean = total / count.view(-1, *[1] * (3 - axis))
        return mean

    def attend(self, qkv: Float[Tensor, "n h w dims"]) -> Float[Tensor, "n h w dim"]:
        """Attention and projection: one matrix of channels for each map."""
        query, key, value = qkv.flatten(1, 2).chunk(3, -1)
        mixed = mix_channels(value, self.weights(query, key), self.proj.weight)
        return mixed.unflatten(1, qkv.shape[1:3])

    def weights(
        self, query: Float[Tensor, "n hw dim"], key: Float[Tensor, "n hw dim"]
    ) -> Float[Tensor, "n heads d d"]:
        """Of each channel of a head to those of the same head, by the cosine over the pixels."""
        logits = channel_cosines(query, key, self.heads) * self.temperature
        match self.activation:
            case "softmax":
                return logits.softmax(-1)
            case "relu":
                return logits.relu()
            case "gelu":
                return F.gelu(logits)
            case "sigmoid":
                return logits.sigmoid()
        return logits


class GatedFeedForward(nn.Module):
    """GDFN: of two maps that looked around, one gates the other."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.enter = TokenLinear(dim, 2 * hidden, bias=False)
        self.around = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.leave = TokenLinear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        return in_strips(self._apply_layers, x, width=self.enter.out_features, halo=1)

    def _apply_layers(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        seen = self.around(rearrange(self.enter(x), "b h w dim -> b dim h w"))
        gate, passed = rearrange(seen, "b (two dim) h w -> two b h w dim", two=2)
        return self.leave(F.gelu(gate) * passed)


def window_starts(side: int, window: int) -> list[int]:
    """Where the windows of the converter begin along a side: evenly, the last at the end."""
    window = min(side, window)
    count = (side - 1) // window + 1
    step = window if count == 1 else -(-(side - window) // (count - 1))
    starts = list(range(0, side - window, step))
    return [*starts, side - window]
