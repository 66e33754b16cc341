"""How CRAFT refines its global structure by its high frequencies: attention over channels."""

from functools import partial

import torch
import torch.nn.functional as F
from attention_core import TokenConv, convolve, in_strips, pad_heads, token_linear
from einops import rearrange
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
        return in_strips(self.refine, low, self.gate.width, halo=1)

    def refine(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        """The gated network around a skip."""
        return x + self.gate(self.norm2(x))


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
        lengths = [torch.linalg.vector_norm(z, dim=1).clamp_min(1e-12) for z in (query, key)]
        cosines = query.mT @ key / (lengths[0][:, :, None] * lengths[1][:, None])
        # Of all pairs of channels those within a head: fewer, larger products than head by head.
        cosines = rearrange(
            cosines, "b (n i) (m j) -> b i j n m", n=self.heads, m=self.heads
        ).diagonal(dim1=-2, dim2=-1)
        weights = (rearrange(cosines, "b i j n -> b n i j") * self.temperature).softmax(-1)
        # Mixing channels twice is one product: the output projection goes into the weights.
        proj = rearrange(self.proj.weight, "out (n i) 1 1 -> n out i", n=self.heads)
        mixing = rearrange(proj @ weights, "b n out j -> b (n j) out")
        return (value @ mixing).unflatten(1, low.shape[1:3])


class GatedFeedForward(nn.Module):
    """One half of the hidden channels, after a depth-wise convolution, gates the other."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = TokenConv(dim, 2 * hidden, bias=False)
        self.spread = DepthwiseConv(2 * hidden)
        self.fc2 = TokenConv(hidden, dim, bias=False)
        self.width = 2 * hidden

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        # Convolutions of 127 channels are several times as slow as those of 128.
        hidden = self.fc2.in_channels
        extra = -hidden % LANES
        wide = token_linear(x, pad_heads(self.fc1.weight.flatten(1), hidden, extra))
        filters = pad_heads(self.spread.weight, hidden, extra)
        wide = convolve(partial(F.conv2d, weight=filters, padding=1, groups=len(filters)), wide)
        gate, value = wide.chunk(2, -1)
        out = pad_heads(self.fc2.weight.flatten(1).mT, hidden, extra).mT
        return token_linear(F.gelu(gate) * value, out)


class DepthwiseConv(nn.Conv2d):
    """A 3 x 3 filter per channel, of maps whose last axis is the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        return convolve(super().forward, x)
