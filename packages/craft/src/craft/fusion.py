"""How CRAFT refines its global structure by its high frequencies: attention over channels."""

import torch
import torch.nn.functional as F
from attention_core import TokenConv, convolve
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


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
        split = "b h w (heads d) -> b heads d (h w)"
        query = rearrange(self.query(high), split, heads=self.heads)
        key_value = rearrange(self.key_value(low), split, heads=2 * self.heads)
        key, value = key_value.chunk(2, 1)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        weights = (query @ key.mT * self.temperature).softmax(-1)
        attended = rearrange(weights @ value, "b heads d (h w) -> b h w (heads d)", h=low.shape[1])
        return self.proj(attended)


class GatedFeedForward(nn.Module):
    """One half of the hidden channels, after a depth-wise convolution, gates the other."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = TokenConv(dim, 2 * hidden, bias=False)
        self.spread = DepthwiseConv(2 * hidden)
        self.fc2 = TokenConv(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        gate, value = self.spread(self.fc1(x)).chunk(2, -1)
        return self.fc2(F.gelu(gate) * value)


class DepthwiseConv(nn.Conv2d):
    """A 3 x 3 filter per channel, of maps whose last axis is the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim, bias=False)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        return convolve(super().forward, x)
