"""What super-resolution networks share beside their bodies: colour, checks, files, upsampling."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from attention_core.config import require, require_positive
from attention_core.model import PaperModel
from attention_core.strips import in_strips
from attention_core.windows import convolve

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, taken off the input of every published model."""
HEAD_REACH = 3
"""Rows that the head sees beyond its own: one before the steps, then 1, 1/2, 1/4 and so on."""


class SuperResolver(PaperModel):
    """A shallow convolution, a body around which it skips, and a sub-pixel head.

    Takes images in [0, 1] and returns them ``scale`` times as large, not clamped. The configuration
    has ``scale``, ``channels`` and ``image_range``. A subclass makes the parts below, and has
    ``from_official``; absolute positions, where a network learns any, are ``positions``.
    """

    conv_first: nn.Module
    embed_norm: nn.Module
    positions: nn.Parameter | None
    groups: nn.ModuleList
    norm: nn.Module
    body_conv: nn.Module
    before_upsample: nn.Module
    upsample: nn.Sequential
    conv_last: nn.Module

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        mean = torch.tensor(RGB_MEAN) if config.channels == 3 else torch.zeros(config.channels)
        self.mean: Tensor
        self.register_buffer("mean", rearrange(mean, "c -> c 1 1"), persistent=False)
        self.register_parameter("positions", None)

    def forward(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c sh sw"]:
        """Enlarge images in [0, 1].

        Raises:
            ValueError: for sides that the network can't take, or another number of channels.
            TypeError: for integers.
        """
        self.check(image)
        x = (image - self.mean) * self.config.image_range
        shallow = self.conv_first(x.contiguous(memory_format=torch.channels_last))
        x = self.body_conv(self.forward_features(shallow)) + shallow
        image = in_strips(
            partial(convolve, self.reconstruct), rearrange(x, "b dim h w -> b h w dim"),
            width=x.shape[1] * self.scale**2, halo=HEAD_REACH, scale=self.scale,
        )  # fmt: skip
        return rearrange(image, "b h w c -> b c h w") / self.config.image_range + self.mean

    def forward_features(self, shallow: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b dim h w"]:
        """Deep features of the shallow ones: the groups, between two norms."""
        x = self.embed_norm(rearrange(shallow, "b dim h w -> b h w dim"))
        if self.positions is not None:
            x = x + self.positions
        for group in self.groups:
            x = group(x)
        return rearrange(self.norm(x), "b h w dim -> b dim h w")

    def reconstruct(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b c sh sw"]:
        """The enlarged image of the features; each row sees ``HEAD_REACH`` more at most."""
        x = F.leaky_relu(self.before_upsample(x), 0.01)
        return self.conv_last(self.upsample(x))

    def check(self, image: Tensor) -> None:
        """Raise for an image that the network can't take."""
        if not image.is_floating_point():
            raise TypeError(f"expects floating point in [0, 1], got {image.dtype}")
        if image.shape[1] != self.config.channels:
            raise ValueError(
                f"the image has {image.shape[1]} channels, the model takes {self.config.channels}"
            )
        height, width = image.shape[2:]
        if not height or not width or height % self.multiple or width % self.multiple:
            raise ValueError(
                f"an image of {height} x {width}: both sides must be multiples of the window, "
                f"{self.multiple}; image_restoration_kit.enlarge pads and crops"
            )
        if self.positions is not None and (height, width) != self.positions.shape[:2]:
            side = len(self.positions)
            raise ValueError(
                f"an image of {height} x {width}: absolute positions tie this model to "
                f"{side} x {side}"
            )

    @property
    def scale(self) -> int:
        return self.config.scale

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def multiple(self) -> int:
        """What both sides of an input are multiples of."""
        return 1

    @property
    def reach(self) -> int | None:
        """How far away a pixel can matter to an output; ``None`` when anywhere in the image."""
        return None


def learned_positions(side: int | None, dim: int) -> nn.Parameter | None:
    """Absolute positions of a square map, to be learned; ``None`` for no side."""
    if side is None:
        return None
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(side, side, dim), std=0.02))


def require_scale(config: object) -> None:
    """The field ``scale`` is 3 or a power of two."""
    require_positive(config, "scale")
    scale: int = config.scale  # type: ignore[attr-defined]
    require(config, "scale", scale == 3 or scale.bit_count() == 1, "must be 3 or a power of two")


def upsampler(scale: int, features: int) -> nn.Sequential:
    """Convolution and pixel shuffle: once for x3, once per doubling otherwise."""
    factors = [3] if scale == 3 else [2] * int(math.log2(scale))
    steps: list[nn.Module] = []
    for factor in factors:
        conv = nn.Conv2d(features, factor**2 * features, 3, padding=1)
        steps += [conv, nn.PixelShuffle(factor)]
    return nn.Sequential(*steps)


def upsampling_scale(state: Mapping[str, Tensor]) -> int:
    """The scale of a checkpoint whose :func:`upsampler` is called ``upsample``."""
    convs = [v for key, v in state.items() if re.fullmatch(r"upsample\.\d+\.weight", key)]
    return math.prod(math.isqrt(conv.shape[0] // conv.shape[1]) for conv in convs)


def initialise_linear(module: nn.Module) -> None:
    """For ``Module.apply``: linear layers from a truncated normal; others keep PyTorch's way."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
