"""Attention within the regions of a partition, and within windows.

The authors mask an L x L table of logits. Here the tokens of a batch are sorted by region, regions
of about the same length are padded to the longest of them, and each such bucket is one call of
fused attention: the cost is the sum of the squared lengths, and the memory grows with L.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from attention_core import TokenLinear, WindowGrid, attend, split_heads
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

SPREAD = 1.2
"""Longest over shortest region of a bucket: what padding may waste against what calls cost."""


@dataclass(frozen=True)
class Bucket:
    """Regions of about the same length, padded to the longest."""

    regions: int
    length: int
    real: Bool[Tensor, "regions 1 1 length"] | None
    """Which places hold a token; ``None`` when all do."""


@dataclass(frozen=True)
class SortedRegions:
    """The tokens of a batch of images by region: made once, used by every layer."""

    order: Int[Tensor, "places"]
    """The token in each place of the buckets; an arbitrary one in the padding."""
    back: Int[Tensor, "tokens"]
    """The place of each token."""
    padding: Int[Tensor, "pads"]
    """The places that hold none."""
    buckets: Sequence[Bucket]

    def attend(
        self, qkv: Float[Tensor, "b tokens qkv"], heads: int, scale: float
    ) -> Float[Tensor, "b tokens dim"]:
        """Attention of each token to those of its region in its image."""
        packed = _Pack.apply(qkv.flatten(0, 1), self.order, self.back)
        sizes = [bucket.regions * bucket.length for bucket in self.buckets]
        attended = []
        for part, bucket in zip(packed.split(sizes), self.buckets, strict=True):
            parts = split_heads(part.unflatten(0, (bucket.regions, bucket.length)), heads)
            out = attend(*parts, bucket.real, scale=scale)
            attended.append(rearrange(out, "r heads n d -> (r n) (heads d)"))
        merged = torch.cat(attended) if len(attended) > 1 else attended[0]
        out = _Unpack.apply(merged, self.order, self.back, self.padding)
        return out.unflatten(0, qkv.shape[:2])


@dataclass(frozen=True)
class MaskedRegions:
    """The same by a table of pairs: for graphs, whose sizes can't depend on the labels."""

    same: Bool[Tensor, "b 1 tokens tokens"]

    def attend(
        self, qkv: Float[Tensor, "b tokens qkv"], heads: int, scale: float
    ) -> Float[Tensor, "b tokens dim"]:
        """Attention of each token to those of its region in its image."""
        out = attend(*split_heads(qkv, heads), self.same, scale=scale)
        return rearrange(out, "b heads n d -> b n (heads d)")


Regions = SortedRegions | MaskedRegions


def group_by_region(labels: Shaped[Tensor, "b tokens"]) -> Regions:
    """How attention goes over tokens with these labels; only which are equal matters."""
    if torch.compiler.is_compiling() or labels.device.type == "meta":
        return mask_by_region(labels)
    return sort_by_region(labels)


def mask_by_region(labels: Shaped[Tensor, "b tokens"]) -> MaskedRegions:
    return MaskedRegions((labels[:, :, None] == labels[:, None, :])[:, None])


@torch.no_grad()
def sort_by_region(labels: Shaped[Tensor, "b tokens"]) -> SortedRegions:
    device = labels.device
    values, label = labels.unique(return_inverse=True)
    image = torch.arange(len(labels), device=device)[:, None]
    _, region, counts = (
        (image * len(values) + label).flatten().unique(return_inverse=True, return_counts=True)
    )
    counts, by_length = counts.sort()
    tokens = by_length.argsort()[region].argsort(stable=True)
    starts = counts.cumsum(0) - counts

    levels = (counts.double().log() / math.log(SPREAD)).floor()
    buckets, order, real = [], [], []
    for members in torch.arange(len(counts), device=device).split(
        levels.unique_consecutive(return_counts=True)[1].tolist()
    ):
        length = int(counts[members[-1]])
        step = torch.arange(length, device=device)
        holds = step < counts[members, None]
        order.append(tokens[starts[members, None] + step * holds].flatten())
        real.append(holds.flatten())
        full = int(counts[members[0]]) == length
        buckets.append(Bucket(len(members), length, None if full else holds[:, None, None]))
    places, holds = torch.cat(order), torch.cat(real)
    back = torch.empty_like(tokens)
    back[places[holds]] = holds.nonzero()[:, 0]
    return SortedRegions(places, back, (~holds).nonzero()[:, 0], buckets)


class _Pack(torch.autograd.Function):
    """Tokens into their places: a gather backwards too, where indexing would scatter.

    Nothing flows back from the padding: as keys it is masked, as queries dropped.
    """

    @staticmethod
    def forward(tokens: Tensor, order: Tensor, back: Tensor) -> Tensor:
        return tokens.index_select(0, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


class _Unpack(torch.autograd.Function):
    """Tokens out of their places again."""

    @staticmethod
    def forward(places: Tensor, order: Tensor, back: Tensor, padding: Tensor) -> Tensor:
        return places.index_select(0, back)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        order, padding = ctx.saved_tensors
        return grad.index_select(0, order).index_fill(0, padding, 0), None, None, None


class RegionAttention(nn.Module):
    """Multi-head self-attention among the pixels of each region (R-MSA).

    The authors scale the logits by 1/sqrt(heads) instead of 1/sqrt(head width).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = TokenLinear(dim, 3 * dim)
        self.proj = TokenLinear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b h w dim"], regions: Regions
    ) -> Float[Tensor, "b h w dim"]:
        tokens = rearrange(self.qkv(x), "b h w qkv -> b (h w) qkv")
        attended = regions.attend(tokens, self.heads, self.heads**-0.5)
        return self.proj(attended.view(x.shape))


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, through which regions exchange what they hold.

    No shift and no position bias; the logits are scaled as in :class:`RegionAttention`.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = TokenLinear(dim, 3 * dim)
        self.proj = TokenLinear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        grid = WindowGrid((x.shape[1], x.shape[2]), (self.window, self.window))
        parts = split_heads(grid.partition(self.qkv(x)), self.heads)
        attended = attend(*parts, scale=self.heads**-0.5)
        return self.proj(grid.merge(rearrange(attended, "n heads t d -> n t (heads d)")))
