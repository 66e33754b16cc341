"""Dropout that costs little on a CPU, where drawing a Bernoulli number per entry is slow."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK = 2**19
"""Attention weights handled at a time: what a core's cache holds."""


def random_keep(shape: tuple[int, ...], rate: float, device: torch.device) -> Bool[Tensor, "..."]:
    """True with probability 1 - ``rate``, to the nearest multiple of 2**-16.

    Each 64 random bits decide over four entries.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    bits.random_(torch.iinfo(torch.int64).min, None)
    threshold = round(rate * 2**16) - 2**15
    return (bits.view(torch.int16)[:count] >= threshold).view(shape)


class Dropout(nn.Dropout):
    """``nn.Dropout``; on a CPU several times cheaper."""

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training or not self.p:
            return input
        if self.p == 1 or not _eager_cpu(input):
            return F.dropout(input, self.p)
        keep = random_keep(tuple(input.shape), self.p, input.device)
        return input * keep.to(input.dtype).mul_(1 / (1 - self.p))


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a branch for some samples and scale up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "b *rest"]) -> Float[Tensor, "b *rest"]:
        if not self.training or not self.rate:
            return branch
        keep = 1 - self.rate
        shape = len(branch), *[1] * (branch.ndim - 1)
        kept = torch.empty(shape, dtype=branch.dtype, device=branch.device)
        return branch * kept.bernoulli_(keep).div_(keep)


def attend_with_dropout(
    query: Float[Tensor, "*batch queries dim"],
    key: Float[Tensor, "*batch keys dim"],
    value: Float[Tensor, "*batch keys value_dim"],
    *,
    dropout: float,
    scale: float,
) -> Float[Tensor, "*batch queries value_dim"]:
    """Attention with dropout on its weights, in memory of one byte per weight.

    torch's fused attention takes no dropout on a CPU. Here the weights are made in chunks that stay
    in the cache, and again in the backward pass; what is kept is which of them were dropped.
    """
    flat = [z.reshape(-1, *z.shape[-2:]) for z in (query, key, value)]
    attended = _DropoutAttention.apply(*flat, dropout, scale)
    return attended.view(*query.shape[:-1], value.shape[-1])


def takes_dropout(query: Tensor) -> bool:
    """Whether :func:`attend_with_dropout` is the cheaper way for this input."""
    return _eager_cpu(query)


def _eager_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class _DropoutAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, dropout, scale):  # type: ignore[no-untyped-def]
        rows, queries = query.shape[:2]
        keep = random_keep((rows, queries, key.shape[1]), dropout, query.device)
        out = query.new_empty(rows, queries, value.shape[-1])
        for part in _chunks(keep):
            weights = _weights(query[part], key[part], scale)
            torch.bmm(weights.mul_(keep[part].to(weights.dtype)), value[part], out=out[part])
        out /= 1 - dropout
        ctx.save_for_backward(query, key, value, keep, out)
        ctx.dropout, ctx.scale = dropout, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        query, key, value, keep, out = ctx.saved_tensors
        grads = [torch.empty_like(z) for z in (query, key, value)]
        level = (grad * out).sum(-1, keepdim=True)
        grad = grad / (1 - ctx.dropout)
        for part in _chunks(keep):
            kept = keep[part].to(query.dtype)
            weights = _weights(query[part], key[part], ctx.scale)
            torch.bmm((weights * kept).mT, grad[part], out=grads[2][part])
            logits = torch.bmm(grad[part], value[part].mT).mul_(kept).sub_(level[part])
            logits.mul_(weights).mul_(ctx.scale)
            torch.bmm(logits, key[part], out=grads[0][part])
            torch.bmm(logits.mT, query[part], out=grads[1][part])
        return *grads, None, None


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    return torch.softmax(torch.bmm(query * scale, key.mT), -1)


def _chunks(keep: Tensor) -> list[slice]:
    rows = max(1, CHUNK // max(1, keep[0].numel())) if len(keep) else 1
    return [slice(start, start + rows) for start in range(0, len(keep), rows)]
