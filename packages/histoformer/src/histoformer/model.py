"""Histoformer: a four-level U-shaped network of histogram transformer blocks."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    PaperModel,
    TokenConv,
    convolve,
    read_checkpoint,
    require,
    require_positive,
    token_linear,
)
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from histoformer.attention import HistogramAttention

LEVELS = 4


@dataclass(frozen=True, kw_only=True)
class HistoformerConfig:
    """Sizes of the network; the defaults are the published ones."""

    dim: int = 36
    """Channels at full resolution; each level below has twice as many."""
    depths: tuple[int, ...] = (4, 4, 6, 8)
    """Blocks of the four levels, the same on the way down and up."""
    refinement: int = 4
    """Blocks after the last level."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Heads, and bins, of the four levels."""
    ffn_ratio: float = 2.667
    """Hidden width of the feed-forward networks over that of their input."""
    bias: bool = False
    """Whether blocks, reductions and the last convolution have one."""
    centred: bool = True
    """Whether norms take the mean off."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "depths", "heads")
        for field in ("depths", "heads"):
            four = len(getattr(self, field)) == LEVELS
            require(self, field, four, "must have an entry for each of the four levels")
        require(self, "dim", self.dim % 2 == 0, "must be even: half of it is sorted")
        whole = isinstance(self.refinement, int) and self.refinement >= 0
        require(self, "refinement", whole, "must be an integer of at least 0")
        for dim, heads in zip(self.dims, self.heads, strict=True):
            require(self, "heads", dim % heads == 0, f"{heads} does not divide a width of {dim}")
        for dim in self.dims:
            hidden = self.hidden(dim)
            fits = hidden > 0 and hidden % 4 == 0
            rule = f"int({dim} * ffn_ratio) = {hidden} must be a multiple of 4 at every level"
            require(self, "ffn_ratio", fits, rule)

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the four levels."""
        return tuple(self.dim * 2**level for level in range(LEVELS))

    def hidden(self, dim: int) -> int:
        """Hidden width of a feed-forward network on ``dim`` channels."""
        return int(dim * self.ffn_ratio)


VARIANTS = {"histoformer": HistoformerConfig()}


class Histoformer(PaperModel):
    """Restores images in [0, 1] at their size; both sides are multiples of 8."""

    variants = VARIANTS
    scale, channels, multiple = 1, 3, 2 ** (LEVELS - 1)
    reach = None
    """Sorting lets every pixel matter to every other."""

    def __init__(self, config: HistoformerConfig) -> None:
        super().__init__(config)
        c, dims, image = config, config.dims, self.channels
        inner = list(zip(dims[:-1], dims[1:], c.heads[:-1], c.depths[:-1], strict=True))
        self.embed = nn.Conv2d(image, c.dim, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(
            _blocks(c, *sizes) for sizes in zip(dims, c.heads, c.depths, strict=True)
        )
        self.down = nn.ModuleList(downsampling(dim) for dim in dims[:-1])
        self.skips = nn.ModuleList(image_skip(image) for _ in inner)
        self.merge = nn.ModuleList(TokenConv(dim + image, dim, bias=c.bias) for dim in dims[1:])
        self.up = nn.ModuleList(upsampling(dim) for dim in dims[:0:-1])
        # The last level keeps what comes from below and from the side apart, at twice the width.
        self.fuse = nn.ModuleList(TokenConv(2 * dim, dim, bias=c.bias) for dim in dims[2:0:-1])
        self.fuse.append(nn.Identity())
        self.decoder = nn.ModuleList(
            _blocks(c, below if dim == c.dim else dim, heads, depth)
            for dim, below, heads, depth in reversed(inner)
        )
        self.refinement = _blocks(c, dims[1], c.heads[0], c.refinement)
        self.output = nn.Conv2d(dims[1], image, 3, padding=1, bias=c.bias)

    @classmethod
    def from_official(cls, checkpoint: Checkpoint, *, centred: bool = True) -> Self:
        """The model of an authors' checkpoint; every size is read off its tensors.

        Args:
            checkpoint: the file (``net_g_best.pth``, ``net_g_real.pth``) or its state dict.
            centred: false for ``LayerNorm_type: BiasFree``.

        Raises:
            CheckpointError: when the file is not a Histoformer.
        """
        from histoformer.official import convert

        return cls.from_state(*convert(read_checkpoint(checkpoint), centred=centred))

    def forward(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restore images in [0, 1]; the result is not clamped.

        Raises:
            ValueError: for sides that are not multiples of 8, or other than three channels.
            TypeError: for integers.
        """
        self.check(image)
        x, small, kept = convolve(self.embed, channels_last(image)), image, []
        down = zip(self.encoder[:-1], self.down, self.skips, self.merge, strict=True)
        for blocks, shrink, skip, merge in down:
            x = blocks(x)
            kept.append(x)
            small = skip(small)
            x = merge(torch.cat([convolve(shrink, x), channels_last(small)], -1))
        x = self.encoder[-1](x)
        for grow, fuse, blocks in zip(self.up, self.fuse, self.decoder, strict=True):
            x = blocks(fuse(torch.cat([convolve(grow, x), kept.pop()], -1)))
        return rearrange(convolve(self.output, self.refinement(x)), "b h w c -> b c h w") + image

    def check(self, image: Tensor) -> None:
        """Raise for an image that the network can't take."""
        if not image.is_floating_point():
            raise TypeError(f"expects floating point in [0, 1], got {image.dtype}")
        if image.shape[1] != self.channels:
            raise ValueError(
                f"the image has {image.shape[1]} channels, the model takes {self.channels}"
            )
        height, width = image.shape[2:]
        if not height or not width or height % self.multiple or width % self.multiple:
            raise ValueError(
                f"an image of {height} x {width}: both sides must be multiples of "
                f"{self.multiple}; image_restoration_kit.enlarge pads and crops"
            )


class HistogramBlock(nn.Module):
    """Histogram attention and a dual-scale gated feed-forward network, each around a skip."""

    def __init__(self, config: HistoformerConfig, dim: int, heads: int) -> None:
        super().__init__()
        self.centred = config.centred
        self.attention = HistogramAttention(dim, heads, bias=config.bias)
        self.ffn = GatedFeedForward(dim, config.hidden(dim), bias=config.bias)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        x = x + self.attention(normalise(x, self.centred))
        return x + self.ffn(normalise(x, self.centred))


class GatedFeedForward(nn.Module):
    """Two depth-wise convolutions of different reach at twice the resolution, one gates (DGFF).

    The dilated one steps over every second pixel: at twice the resolution it convolves each of the
    four pixels of a cell with its like in the neighbouring cells, so that the gate need not be
    taken apart.
    """

    def __init__(self, dim: int, hidden: int, *, bias: bool = False) -> None:
        super().__init__()
        part = hidden // 4
        self.expand = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.wide = nn.Conv2d(part, part, 5, padding=2, groups=part, bias=bias)
        self.dilated = nn.Conv2d(part, part, 3, padding=2, dilation=2, groups=part, bias=bias)
        self.out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        expand = _by_pixels(self.expand.weight.flatten(1)).unbind()
        bias = self.expand.bias
        biases = (None, None) if bias is None else _by_pixels(bias).unbind()
        x, gate = (token_linear(x, *half) for half in zip(expand, biases, strict=True))
        x = rearrange(x, "b h w (y x c) -> b (h y) (w x) c", y=2, x=2)
        x = rearrange(convolve(self.wide, x), "b (h y) (w x) c -> b h w (y x c)", y=2, x=2)
        x = F.mish(convolve(self.dilated_cells, gate)) * x
        out = rearrange(self.out.weight, "dim (c cell) 1 1 -> dim (cell c)", cell=4)
        return token_linear(x, out, self.out.bias)

    def dilated_cells(self, x: Float[Tensor, "b cells h w"]) -> Float[Tensor, "b cells h w"]:
        weight, bias = self.dilated.weight.repeat(4, 1, 1, 1), self.dilated.bias
        bias = None if bias is None else bias.repeat(4)
        return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])


def _by_pixels(parameter: Float[Tensor, "hidden *rest"]) -> Float[Tensor, "2 part *rest"]:
    """Rows by half, then by pixel of a cell; those of a pixel are its features."""
    return rearrange(parameter, "(half c cell) ... -> half (cell c) ...", half=2, cell=4)


def normalise(x: Float[Tensor, "b h w dim"], centred: bool = True) -> Float[Tensor, "b h w dim"]:
    """Each pixel over the spread of its channels; nothing is learned."""
    if centred:
        return F.layer_norm(x, x.shape[-1:])
    return x * (x.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()


def channels_last(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    return rearrange(x, "b c h w -> b h w c").contiguous()


def downsampling(dim: int) -> nn.Sequential:
    """Half the sides, twice the channels."""
    return nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def upsampling(dim: int) -> nn.Sequential:
    """Twice the sides, half the channels."""
    return nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))


def image_skip(channels: int) -> nn.Sequential:
    """The image at half its sides, for the level below."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
    )


def _blocks(config: HistoformerConfig, dim: int, heads: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(HistogramBlock(config, dim, heads) for _ in range(depth)))
