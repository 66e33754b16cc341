"""RRFormer: preprocessing embedding, self-attention and multi-scale feature extraction."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    DropPath,
    FeedForward,
    PaperModel,
    PointwiseConv,
    WindowAttention,
    initialise_linear,
    pointwise,
    read_checkpoint,
    require,
    require_choice,
    require_fraction,
    require_positive,
)
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rrformer.features import VGG19, WIDTHS

LEAST_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class RRFormerConfig:
    """Sizes of the network; the defaults are the paper's."""

    features: int = 256
    """Channels at full size."""
    dim: int = 240
    """Channels of the body, at half size."""
    depths: tuple[int, ...] = (6, 6, 6, 6, 6)
    """Swin layers of each residual group."""
    heads: int = 6
    window: int = 8
    mlp_ratio: float = 2.0
    pyramid: tuple[int, ...] = (4, 8, 16, 32)
    """Sides of the poolings."""
    pyramid_features: int = 64
    """Channels of each."""
    hypercolumn: bool = True
    """Whether features of VGG-19 stand beside the image's three channels."""
    body: str = "residual"
    """``residual``, as the paper describes it; or ``bypass``: the authors' released code computes
    the body and then returns its input."""
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "features", "dim", "depths", "heads", "window", "pyramid")
        require_positive(self, "pyramid_features")
        require(self, "heads", self.dim % self.heads == 0, f"must divide dim={self.dim}")
        require(self, "window", self.window > 1, "a window of 1 can't shift")
        require(self, "mlp_ratio", self.dim * self.mlp_ratio >= 1, "must be positive")
        fits = max(self.pyramid) <= LEAST_SIDE
        require(self, "pyramid", fits, f"no pooling may exceed {LEAST_SIDE}, the smallest image")
        require_choice(self, "body", ("residual", "bypass"))
        require_fraction(self, "drop_path")


VARIANTS = {
    "rrformer": RRFormerConfig(),
    "rrformer_released": RRFormerConfig(body="bypass"),
}
"""What the paper describes, and what the authors' code computes with the same weights."""


class RRFormer(PaperModel):
    """Takes the reflection off a photograph: an image in [0, 1] in, the transmission out.

    The output has the input's size; it is at least 0 and not clamped at 1. The weights of VGG-19
    are part of the state but no parameters; fresh ones are random, see :meth:`VGG19.load`.
    """

    variants = VARIANTS

    def __init__(self, config: RRFormerConfig) -> None:
        super().__init__(config)
        self.embedding = PreprocessingEmbedding(config)
        self.body = SelfAttentionFeatureExtraction(config)
        self.decoder = MultiScaleSpatialFeatureExtraction(config)
        self.body.apply(initialise_linear)
        self.body.requires_grad_(config.body == "residual")

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        vgg: Checkpoint | None = None,
        heads: int = 6,
        body: str = "residual",
        drop_path: float = 0.1,
    ) -> Self:
        """The model of an authors' checkpoint (``errnet_*.pt``).

        Args:
            checkpoint: the file, or its state dict.
            vgg: torchvision's VGG-19 file; needed unless the network goes without a hypercolumn
                or the checkpoint holds VGG-19 too.
            heads: of attention.
            body: ``residual``, the paper's; or ``bypass``, the authors' released code.
            drop_path: for training on.

        Raises:
            CheckpointError: when the file is not an RRFormer, or VGG-19 is missing.
        """
        from rrformer.official import convert

        state = read_checkpoint(checkpoint, strip=False)
        features = None if vgg is None else read_checkpoint(vgg)
        options = {"heads": heads, "body": body, "drop_path": drop_path}
        return cls.from_state(*convert(state, features, **options))  # type: ignore[arg-type]

    def forward(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        """Remove the reflection of images in [0, 1], of any size from 32 x 32.

        Raises:
            ValueError: for smaller sides, or another number of channels.
            TypeError: for integers.
        """
        self._check(image)
        height, width = image.shape[2:]
        return self.uncropped(image)[..., :height, :width]

    def uncropped(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 eh ew"]:
        """The same with both sides rounded up to even ones."""
        x = self.embedding(image)
        if self.config.body == "residual":
            x = self.body(x)
        return self.decoder(x)

    @property
    def scale(self) -> int:
        return 1

    @property
    def channels(self) -> int:
        return 3

    @property
    def multiple(self) -> int:
        """Any size goes; in tiles of multiples of 32, poolings and windows lie as in the whole."""
        return 1

    @property
    def reach(self) -> int | None:
        """No tile sees all that a pixel depends on: windows shift through the whole depth."""
        return None

    def _check(self, image: Tensor) -> None:
        if not image.is_floating_point():
            raise TypeError(f"expects floating point in [0, 1], got {image.dtype}")
        if image.shape[1] != 3:
            raise ValueError(f"the image has {image.shape[1]} channels, the model takes 3")
        height, width = image.shape[2:]
        if min(height, width) < LEAST_SIDE:
            raise ValueError(
                f"an image of {height} x {width}: both sides must be at least {LEAST_SIDE}"
            )


class PreprocessingEmbedding(nn.Module):
    """The image and, beside it, what VGG-19 sees in it; then to half its size."""

    def __init__(self, config: RRFormerConfig) -> None:
        super().__init__()
        c = config
        self.vgg = VGG19() if c.hypercolumn else None
        self.hypercolumn = Hypercolumn(c.features, (3, *WIDTHS) if c.hypercolumn else (3,))
        self.conv = nn.Conv2d(c.features, c.features, 3, padding=1)
        self.shrink = nn.Conv2d(c.features, c.dim, 3, stride=2, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim h2 w2"]:
        image = image.contiguous(memory_format=torch.channels_last)  # and so all that follows
        maps = [image]
        if self.vgg is not None:
            with torch.no_grad():
                maps += self.vgg(image.detach())
        x = self.hypercolumn(maps).relu_()
        return self.shrink(self.conv(x).relu_()).relu_()


class Hypercolumn(nn.Module):
    """A 1 x 1 convolution of maps that are enlarged to the first one's size and stacked.

    Both are linear, so that each map goes through its own part of the convolution before it is
    enlarged: the stack of 1475 channels at full size never exists.
    """

    def __init__(self, features: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        fresh = nn.Conv2d(sum(widths), features, 1)
        self.weight, self.bias = fresh.weight, fresh.bias

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "b features h w"]:
        first, *others = self.weight.split(self.widths, 1)
        image, *maps = maps
        total = pointwise(image, first, self.bias)
        size = image.shape[2:]
        for x, weight in zip(maps, others, strict=True):
            mixed = pointwise(x, weight)
            if mixed.shape[2:] != size:
                mixed = F.interpolate(mixed, size, mode="bilinear", align_corners=False)
            total += mixed
        return total


class SelfAttentionFeatureExtraction(nn.Module):
    """Residual groups of Swin layers, and a skip around all of them."""

    def __init__(self, config: RRFormerConfig) -> None:
        super().__init__()
        c = config
        self.window = c.window
        self.first_norm = nn.LayerNorm(c.dim)
        step = c.drop_path / max(1, sum(c.depths) - 1)
        starts = accumulate(c.depths, initial=0)
        self.groups = nn.ModuleList(
            ResidualSwinGroup(c, tuple(step * layer for layer in range(start, start + depth)))
            for start, depth in zip(starts, c.depths, strict=False)
        )
        self.norm = nn.LayerNorm(c.dim)
        self.conv = nn.Conv2d(c.dim, c.dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b dim h w"]:
        height, width = x.shape[2:]
        if height % self.window or width % self.window:
            x = F.pad(x, (0, -width % self.window, 0, -height % self.window), mode="reflect")
        y = self.first_norm(rearrange(x, "b dim h w -> b h w dim"))
        for group in self.groups:
            y = group(y)
        y = self.conv(rearrange(self.norm(y), "b h w dim -> b dim h w"))
        return (x + y)[..., :height, :width]


class ResidualSwinGroup(nn.Module):
    """Swin layers, a convolution, and a skip around both (RSTB)."""

    def __init__(self, config: RRFormerConfig, drop_paths: tuple[float, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SwinLayer(config, shift=config.window // 2 * (number % 2), drop_path=rate)
            for number, rate in enumerate(drop_paths)
        )
        self.conv = nn.Conv2d(config.dim, config.dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        y = x
        for layer in self.layers:
            y = layer(y)
        y = self.conv(rearrange(y, "b h w dim -> b dim h w"))
        return x + rearrange(y, "b dim h w -> b h w dim")


class SwinLayer(nn.Module):
    """Window attention and a feed-forward network, each behind a norm and around a skip."""

    def __init__(self, config: RRFormerConfig, *, shift: int, drop_path: float) -> None:
        super().__init__()
        dim, window = config.dim, config.window
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, config.heads, (window, window))
        self.mlp = FeedForward(dim, int(dim * config.mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        x = x + self.drop_path(self.attention(self.norm1(x), (self.shift, self.shift)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MultiScaleSpatialFeatureExtraction(nn.Module):
    """Back to full size, averages over larger and larger squares beside, and the image."""

    def __init__(self, config: RRFormerConfig) -> None:
        super().__init__()
        c = config
        self.grow = nn.ConvTranspose2d(c.dim, c.features, 4, stride=2, padding=1)
        self.refine = nn.Conv2d(c.features, c.features, 3, padding=1)
        self.pyramid = PyramidPooling(c.features, c.pyramid, c.pyramid_features)
        self.last = PointwiseConv(c.features, 3)

    def forward(self, x: Float[Tensor, "b dim h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        x = self.refine(self.grow(x).relu_()).relu_()
        return self.last(self.pyramid(x)).relu_()


class PyramidPooling(nn.Module):
    """Averages over larger and larger squares beside the map itself, mixed by a convolution.

    What a square gives is constant over it, so it is mixed before it is spread.
    """

    def __init__(self, features: int, sides: tuple[int, ...], pooled: int) -> None:
        super().__init__()
        self.sides, self.pooled = sides, pooled
        self.stages = nn.ModuleList(PointwiseConv(features, pooled, bias=False) for _ in sides)
        self.mix = nn.Conv2d(features + pooled * len(sides), features, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        *parts, own = self.mix.weight.split([*[self.pooled] * len(self.sides), x.shape[1]], 1)
        total = pointwise(x, own, self.mix.bias)
        for side, stage, weight in zip(self.sides, self.stages, parts, strict=True):
            squares = F.leaky_relu_(stage(F.avg_pool2d(x, side)), 0.2)
            total += F.interpolate(pointwise(squares, weight), x.shape[2:])
        return F.leaky_relu_(total, 0.2)
