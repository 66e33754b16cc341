"""How CRAFT refines its global structure by its high frequencies: attention over channels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from attention_core import (
    TokenConv,
    channel_cosines,
    convolve,
    in_strips,
    mix_channels,
    pad_heads,
    token_linear,
)
from jaxtyping import Float
from torch import Tensor, nn

LANES = 16
"""Channels are padded to a multiple of this: what a vector unit takes at once."""


class HybridFusionBlock(nn.Module):
    """The high frequencies ask, the global structure answers; then a gated network (HFB)."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = ChannelCrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.gate = GatedFeedForward(dim, hidden)

    def forward(
        self, low: Float[Tensor, "b h w dim"], high: Float[Tensor, "b h w dim"]
    ) -> Float[Tensor, "b h w dim"]:
        low = low + self.attention(self.norm1(low), high)
        return low + self.gate(self.norm2(low))


class ChannelCrossAttention(nn.Module):
    """Attention between the channels of two maps, a channel's token being its whole map.

    Its cost is linear in the number of pixels.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = nn.Sequential(TokenConv(dim, dim, bias=False), DepthwiseConv(dim))
        self.key_value = nn.Sequential(TokenConv(dim, 2 * dim, bias=False), DepthwiseConv(2 * dim))
        self.proj = TokenConv(dim, dim, bias=False)

    def forward(
        self, low: Float[Tensor, "b h w dim"], high: Float[Tensor, "b h w dim"]
    ) -> Float[Tensor, "b h w dim"]:
        query = self.query(high).flatten(1, 2)
        key, value = self.key_value(low).flatten(1, 2).chunk(2, -1)
        cosines = channel_cosines(query, key, self.heads)
        weights = (cosines * self.temperature).softmax(-1)
        mixed = mix_channels(value, weights, self.proj.weight.flatten(1))
        return mixed.unflatten(1, low.shape[1:3])


class GatedFeedForward(nn.Module):
    """One half of the hidden channels, after a depth-wise convolution, gates the other."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = TokenConv(dim, 2 * hidden, bias=False)
        self.spread = DepthwiseConv(2 * hidden)
        self.fc2 = TokenConv(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        # Convolutions of 127 channels are several times as slow as those of 128.
        hidden = self.fc2.in_channels
        extra = -hidden % LANES
        wide, spread = (pad_heads(p.weight, hidden, extra) for p in (self.fc1, self.spread))
        fc2 = pad_heads(self.fc2.weight.flatten(1).mT, hidden, extra).mT
        # A half of its own for each of gate and value: what they go through lies in one piece.
        weights = (*wide.flatten(1).chunk(2), *spread.chunk(2), fc2)
        return in_strips(_gated, x, *weights, width=len(wide), halo=1)


def _gated(
    x: Float[Tensor, "b h w dim"],
    to_gate: Float[Tensor, "hidden dim"],
    to_value: Float[Tensor, "hidden dim"],
    spread_gate: Float[Tensor, "hidden 1 3 3"],
    spread_value: Float[Tensor, "hidden 1 3 3"],
    out: Float[Tensor, "dim hidden"],
) -> Float[Tensor, "b h w dim"]:
    gate = convolve(_depthwise(spread_gate), token_linear(x, to_gate))
    value = convolve(_depthwise(spread_value), token_linear(x, to_value))
    return token_linear(F.gelu(gate) * value, out)


def _depthwise(filters: Float[Tensor, "dim 1 3 3"]) -> Callable[[Tensor], Tensor]:
    return partial(F.conv2d, weight=filters, padding=1, groups=len(filters))


class DepthwiseConv(nn.Conv2d):
    """A 3 x 3 filter per channel, of maps whose last axis is the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        return convolve(super().forward, x)
