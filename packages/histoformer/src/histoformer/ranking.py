"""Values in order along an axis, others in the same order, and back.

Autograd sums up what a gather sends back, knowing of no permutation: here gradients are put where
they belong.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

SORTED_AT_ONCE = 1 << 16
"""Values that a CPU sorts at a time, so that they stay in its cache."""


def sort(x: Float[Tensor, "*more n"]) -> tuple[Float[Tensor, "*more n"], Int[Tensor, "*more n"]]:
    """The values along the last axis upwards, and where each comes from."""
    return _Sort.apply(x)


def permute(
    x: Float[Tensor, "*more b c n"], order: Int[Tensor, "b c n"]
) -> Float[Tensor, "*more b c n"]:
    """The pixels of each channel in another order."""
    return _Permute.apply(x, order)


def restore(
    x: Float[Tensor, "*more b c n"], order: Int[Tensor, "b c n"]
) -> Float[Tensor, "*more b c n"]:
    """Undo :func:`permute`."""
    return _Restore.apply(x, order)


def radix_sort(x: Float[Tensor, "*more n"]) -> tuple[Tensor, Tensor]:
    """What ``x.sort()`` gives, for float32 on a CPU in a fraction of its time.

    PyTorch compares floats but sorts a long row of integers by their digits: here by the row that
    a value stands in, and then by its bits, which as integers are in the order of the values once
    those of negative ones are turned over.
    """
    n = x.shape[-1]
    values, orders = [], []
    for rows in x.reshape(-1, n).split(max(1, SORTED_AT_ONCE // n)):
        row = torch.arange(len(rows), device=x.device)[:, None]
        keys, order = (_turned(rows.view(torch.int32)) + (row << 32)).flatten().sort()
        values.append(_turned(keys.int()).view(x.dtype).view_as(rows))
        orders.append(order.view_as(rows) - row * n)
    return torch.cat(values).view_as(x), torch.cat(orders).view_as(x)


def _turned(bits: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


class _Sort(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        radix = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
        values, order = radix_sort(x) if radix else x.sort()
        return values, order

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        return _Restore.apply(grad, *ctx.saved_tensors)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, order: Tensor) -> Tensor:
        return x.gather(-1, order.expand_as(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Restore.apply(grad, *ctx.saved_tensors), None


class _Restore(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, order: Tensor) -> Tensor:
        return torch.empty_like(x).scatter_(-1, order.expand_as(x), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Permute.apply(grad, *ctx.saved_tensors), None
