"""The dynamic convolution: each position brings the kernel that it is filtered with (Eq. 3).

The authors compute it in a CUDA kernel of their own. Here it is one operator whose passes go over
the kernel's offsets: each adds a shifted image times one weight per position to what stays in the
cache, and nothing of the size of image times kernel is made.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CACHE = 512 * 1024
"""Bytes of output that a CPU works on at a time."""


def dynamic_convolution(
    image: Float[Tensor, "b dim h w"], kernels: Float[Tensor, "b groups taps h w"]
) -> Float[Tensor, "b dim h w"]:
    """Filter every position with its own kernel; zeros outside the image.

    Args:
        image: channels in as many groups as kernels; those of a group share one.
        kernels: per group and position the weights of an odd square, row by row.

    Raises:
        ValueError: channels that are not a multiple of the groups, or no odd square of weights.
    """
    dim, (groups, taps) = image.shape[1], kernels.shape[1:3]
    side = math.isqrt(taps)
    if dim % groups:
        raise ValueError(f"{dim} channels do not fall into {groups} groups")
    if side**2 != taps or side % 2 == 0:
        raise ValueError(f"{taps} weights at a position: must be an odd square, such as 49")
    return _dynamic(image, kernels.to(image.dtype))


def reference(
    image: Float[Tensor, "b dim h w"], kernels: Float[Tensor, "b groups taps h w"]
) -> Float[Tensor, "b dim h w"]:
    """The same by unfolding the image: plain tensor operations, for tests and races."""
    groups, taps, height, width = kernels.shape[1:]
    side = math.isqrt(taps)
    pieces = F.unfold(image, side, padding=side // 2)
    pieces = pieces.view(len(image), groups, image.shape[1] // groups, taps, height, width)
    return (pieces * kernels[:, :, None]).sum(3).flatten(1, 2)


@torch.library.custom_op("dlgsanet::dynamic_convolution", mutates_args=())
def _dynamic(image: Tensor, kernels: Tensor) -> Tensor:
    padded = _padded(image, kernels)
    out = padded.new_zeros(*padded.shape[:3], *image.shape[2:])
    for rows, tap, y, x in _passes(out, kernels):
        weight = kernels[:, :, tap, None, rows]
        out[..., rows, :].addcmul_(weight, _shifted(padded, rows, y, x, out))
    return out.flatten(1, 2).to(image.dtype)


@_dynamic.register_fake
def _(image: Tensor, kernels: Tensor) -> Tensor:
    return image.new_empty(image.shape)


@torch.library.custom_op("dlgsanet::dynamic_convolution_backward", mutates_args=())
def _dynamic_backward(grad: Tensor, image: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the image and of the kernels."""
    padded = _padded(image, kernels)
    grad = grad.to(padded.dtype).contiguous().unflatten(1, padded.shape[1:3])
    grad_padded = torch.zeros_like(padded)
    grad_kernels = torch.empty_like(kernels, memory_format=torch.contiguous_format)
    for rows, tap, y, x in _passes(grad, kernels):
        part = grad[..., rows, :]
        _shifted(grad_padded, rows, y, x, grad).addcmul_(kernels[:, :, tap, None, rows], part)
        grad_kernels[:, :, tap, rows] = (part * _shifted(padded, rows, y, x, grad)).sum(2)
    edge = (padded.shape[-1] - image.shape[-1]) // 2
    inner = grad_padded[..., edge : edge + image.shape[2], edge : edge + image.shape[3]]
    return inner.flatten(1, 2).to(image.dtype, memory_format=torch.contiguous_format), grad_kernels


@_dynamic_backward.register_fake
def _(grad: Tensor, image: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), kernels.new_empty(kernels.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _dynamic_backward(grad, *ctx.saved_tensors)


_dynamic.register_autograd(_backward, setup_context=_save)


def _padded(image: Tensor, kernels: Tensor) -> Float[Tensor, "b groups dim h w"]:
    """The image in its groups with a border of zeros, at least in float32."""
    edge = math.isqrt(kernels.shape[2]) // 2
    wide = image.to(torch.promote_types(image.dtype, torch.float32)).contiguous()
    return F.pad(wide, (edge,) * 4).unflatten(1, (kernels.shape[1], -1))


def _passes(out: Tensor, kernels: Tensor) -> Iterator[tuple[slice, int, int, int]]:
    """Rows that stay in the cache; for each, every weight's number and place in the kernel."""
    height, side = out.shape[-2], math.isqrt(kernels.shape[2])
    bytes_of_a_row = max(out[..., :1, :].numel() * out.element_size(), 1)
    step = max(CACHE // bytes_of_a_row, 1) if out.device.type == "cpu" else max(height, 1)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        for tap in range(side**2):
            yield rows, tap, *divmod(tap, side)


def _shifted(padded: Tensor, rows: slice, y: int, x: int, out: Tensor) -> Tensor:
    """What the weight at (y, x) of the kernel meets in these rows."""
    return padded[..., rows.start + y : rows.stop + y, x : x + out.shape[-1]]
