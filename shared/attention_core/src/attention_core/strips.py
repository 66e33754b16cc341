"""Layers a few rows of a map at a time: what lies between them stays in a CPU's cache."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

STRIP_BYTES, LEARNING_STRIP_BYTES = 1 << 20, 4 << 20
"""Of the widest map between, of the rows that :func:`in_strips` works on.

More where gradients are asked for: what neighbouring strips share is then computed four times.
"""
LEAST_HALOS = 8
"""Rows of a strip for each that its neighbours compute as well."""


def in_strips(
    function: Callable[..., Tensor],
    x: Float[Tensor, "b h w dim"],
    *tensors: Tensor,
    width: int,
    halo: int = 0,
    scale: int = 1,
) -> Float[Tensor, "b new_h new_w out"]:
    """``function(x, *tensors)``, on a CPU of a few rows of ``x`` at a time.

    What the function makes on the way then stays in the cache and is not the size of the map; for
    the backward pass the arguments alone are kept, and the rest is computed again.

    Args:
        function: whose every row depends on the ``halo`` rows above and below, and on a border as
            a convolution with zeros around the map does. It draws no random numbers.
        x: the maps.
        tensors: all else that may ask for a gradient. If none are given, strips are for inference
            alone, and the function may compute with anything.
        width: channels of the widest map that it makes on the way, for each pixel of ``x``.
        halo: see above.
        scale: rows that it makes of each row.
    """
    if not may_cut(x):
        return function(x, *tensors)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *tensors))
    most = LEARNING_STRIP_BYTES if learns else STRIP_BYTES
    rows = max(1, LEAST_HALOS * halo, most // (4 * width * max(1, x.shape[2])))
    if (learns and not tensors) or x.shape[0] * x.shape[1] <= rows:
        return function(x, *tensors)
    return _Strips.apply(function, (rows, halo, scale), x, *tensors)


def may_cut(x: Tensor) -> bool:
    """Whether work on a map pays in pieces: on a CPU, and not in graphs, which decide alone."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(
        function: Callable[..., Tensor], cut: tuple[int, int, int], x: Tensor, *tensors: Tensor
    ) -> Tensor:
        strips = [_strip(function, kept, x[seen], *tensors) for seen, kept in _strips(x, *cut)]
        return torch.cat(strips).unflatten(0, (len(x), -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, ctx.cut, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        grads = [torch.zeros_like(tensor) for tensor in (x, *tensors)]
        rows = grad.flatten(0, 1)
        for seen, kept in _strips(x, *ctx.cut):
            function = partial(_strip, ctx.function, kept)
            out, pull = torch.func.vjp(function, x[seen], *tensors)[:2]
            part, *parts = pull(rows[: len(out)])
            rows = rows[len(out) :]
            grads[0][seen] += part
            for total, more in zip(grads[1:], parts, strict=True):
                total += more
        return None, None, *grads


def _strip(
    function: Callable[..., Tensor], kept: slice, x: Tensor, *tensors: Tensor
) -> Float[Tensor, "rows w out"]:
    return function(x, *tensors)[:, kept].flatten(0, 1)


def _strips(
    x: Tensor, rows: int, halo: int, scale: int
) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Images and rows that are seen, and those of their rows that are kept: as even as may be."""
    batch, height = x.shape[:2]
    even = -(-height // -(-height // rows))
    many = max(1, rows // height)
    for first in range(0, batch, many):
        for top in range(0, height, even):
            start = max(top - halo, 0)
            kept = slice(scale * (top - start), scale * (min(top + even, height) - start))
            yield (slice(first, first + many), slice(start, top + even + halo)), kept
