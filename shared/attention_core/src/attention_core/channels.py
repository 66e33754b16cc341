"""Attention between the channels of maps, a channel's token being its whole map.

Its cost is linear in the number of pixels (XCiT, Restormer; DLGSANet, CRAFT).
"""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attention_core.linear import keeps_all, map_linear

SHORTEST = 1e-12
"""What the length of a channel is taken for at least."""
ALL_PAIRS = 96
"""Channels up to which products of all pairs, heads apart too, train faster than head by head."""


def channel_cosines(
    query: Float[Tensor, "b pixels dim"], key: Float[Tensor, "b pixels dim"], heads: int
) -> Float[Tensor, "b heads d d"]:
    """The cosine, over the pixels, of each channel of a query's head to those of the key's head."""
    if keeps_all(query) or query.shape[-1] > ALL_PAIRS:
        parts = (rearrange(x, "b n (heads d) -> b heads n d", heads=heads) for x in (query, key))
        return _cosines(*parts)
    all_pairs = rearrange(
        _Cosines.apply(query, key), "b (n i) (m j) -> b i j n m", n=heads, m=heads
    )
    return rearrange(all_pairs.diagonal(dim1=-2, dim2=-1), "b i j n -> b n i j")


def mix_channels(
    value: Float[Tensor, "b pixels dim"],
    weights: Float[Tensor, "b heads d d"],
    out: Float[Tensor, "out dim"],
) -> Float[Tensor, "b pixels out"]:
    """Each channel's mean of its head's by the weights, then the projection ``out``.

    Mixing channels twice is one product over the pixels.
    """
    by_head = rearrange(out, "out (heads d) -> heads out d", heads=weights.shape[1])
    return map_linear(value, rearrange(by_head @ weights, "b heads out d -> b out (heads d)"))


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(query: Tensor, key: Tensor) -> Tensor:
        return _cosines(query, key)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, key, cosines = ctx.saved_tensors
        down, right = _length(query), _length(key)
        along, products = grad * cosines, grad / (down[:, :, None] * right[:, None])
        # Towards the other's channels, less what would only change the own length.
        grad_query = map_linear(key, products) - query * (along.sum(2) / down**2)[:, None]
        grad_key = map_linear(query, products.mT) - key * (along.sum(1) / right**2)[:, None]
        return grad_query, grad_key


def _cosines(
    query: Float[Tensor, "*b pixels d"], key: Float[Tensor, "*b pixels e"]
) -> Float[Tensor, "*b d e"]:
    return query.mT @ key / (_length(query)[..., :, None] * _length(key)[..., None, :])


def _length(x: Float[Tensor, "*b pixels dim"]) -> Float[Tensor, "*b dim"]:
    return torch.linalg.vector_norm(x, dim=-2).clamp_min(SHORTEST)
