"""Scaled dot-product attention as the papers use it, and tables kept per size."""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from attention_core.dropout import attend_with_dropout, takes_dropout

P = ParamSpec("P")


def attend(
    query: Float[Tensor, "*batch queries dim"],
    key: Float[Tensor, "*batch keys dim"],
    value: Float[Tensor, "*batch keys value_dim"],
    bias: Float[Tensor, "..."] | Bool[Tensor, "..."] | None = None,
    *,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries value_dim"]:
    """softmax(scale * query keyᵀ + bias) value, fused; memory grows with queries + keys.

    Args:
        query: one vector per position that asks.
        key: one vector per position asked.
        value: what each asked position gives.
        bias: added to the logits, or a mask that is true where attention is allowed;
            broadcast against [*batch, queries, keys].
        dropout: rate on the weights; the caller passes 0 in evaluation.
        scale: of the logits; 1/sqrt(dim) by default.
    """
    if dropout and bias is None and takes_dropout(query):
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return attend_with_dropout(query, key, value, dropout=dropout, scale=scale)
    if bias is not None:
        # The CPU's fused kernel wants a bias with as many axes as the query.
        bias = bias[(None,) * (query.ndim - bias.ndim)]
        bias = bias if bias.dtype == torch.bool else bias.to(query.dtype)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale
    )


def split_heads(
    qkv: Float[Tensor, "*batch tokens dims"], heads: int
) -> tuple[
    Float[Tensor, "*batch heads tokens d"],
    Float[Tensor, "*batch heads tokens d"],
    Float[Tensor, "*batch heads tokens d"],
]:
    """Queries, keys and values of each head, of vectors in which they lie one after another.

    Nothing is copied, and backwards the three gradients are laid side by side in one pass.
    """
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)
    return query.transpose(-3, -2), key.transpose(-3, -2), value.transpose(-3, -2)


def attention_weights(
    query: Float[Tensor, "*batch queries dim"],
    key: Float[Tensor, "*batch keys dim"],
    bias: Float[Tensor, "..."] | Bool[Tensor, "..."] | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "*batch queries keys"]:
    """The weights that :func:`attend` applies, for looking at: memory grows with queries x keys."""
    logits = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        masked = bias.dtype == torch.bool
        logits = logits.masked_fill(~bias, -torch.inf) if masked else logits + bias
    return logits.softmax(-1)


def cached_per_size(build: Callable[P, Tensor], *, most: int = 32) -> Callable[P, Tensor]:
    """Decorator: keep the tensors that ``build`` makes from hashable arguments (sizes, device).

    The ``most`` recently used are kept. A kept tensor never takes part in autograd and is usable in
    training even if it was first built under ``inference_mode``. Inside ``torch.compile`` and
    ``torch.export`` the table becomes part of the graph instead.
    """
    kept: OrderedDict[object, Tensor] = OrderedDict()

    @functools.wraps(build)
    def table(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return build(*args, **kwargs)
        # A builder's factory calls obey `with torch.device(...)`, and so must the memory.
        key = (args, tuple(sorted(kwargs.items())), torch.get_default_device())
        if key not in kept:
            with torch.inference_mode(False), torch.no_grad():
                kept[key] = build(*args, **kwargs)
            if len(kept) > most:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]

    return table
