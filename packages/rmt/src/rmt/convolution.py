"""Convolutions of channel-last maps."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from attention_core import cached_per_size
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight


class ConvNorm(nn.Sequential):
    """A 3x3 convolution with bias and its batch norm, over [batch, channels, height, width]."""

    def __init__(self, channels: int, dim: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels, dim, 3, stride, padding=1), nn.BatchNorm2d(dim))

    def forward(self, image: Float[Tensor, "b channels h w"]) -> Float[Tensor, "b dim h2 w2"]:
        conv: Any = self[0]
        norm: Any = self[1]
        if norm.training or torch.is_grad_enabled() or conv.weight.dtype != torch.float32:
            return norm(conv(image))
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias + (conv.bias - norm.running_mean) * scale
        weight = conv.weight * rearrange(scale, "dim -> dim 1 1 1")
        return F.conv2d(image, weight, shift, conv.stride, conv.padding)


class DepthwiseConv(nn.Conv2d):
    """One filter per channel over a channel-last map, same size, zero padding.

    Args:
        dim: channels.
        size: side of the filters, odd.
        residual: add the input to the output.
    """

    def __init__(self, dim: int, size: int, *, residual: bool = False) -> None:
        super().__init__(dim, dim, size, padding=size // 2, groups=dim)
        self.residual = residual

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        image, weight, bias = to_image(x), self.weight, cast(Tensor, self.bias)
        device = x.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            image, weight, bias = (tensor.to(dtype) for tensor in (image, weight, bias))
        # One more in a filter's centre adds the input; in half precision it would round the filter.
        folded = self.residual and weight.dtype == torch.float32
        if folded:
            weight = weight + centre(self.kernel_size[0], weight.device)
        convolve = _DepthwiseConv5.apply if self._slow_backward(image) else _convolve
        out = to_map(convolve(image, weight, bias))
        return x + out if self.residual and not folded else out

    def _slow_backward(self, image: Tensor) -> bool:
        return self.kernel_size == (5, 5) and image.device.type == "cpu" and torch.is_grad_enabled()


def to_image(x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b dim h w"]:
    return x.permute(0, 3, 1, 2)


def to_map(image: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b h w dim"]:
    return image.permute(0, 2, 3, 1)


@cached_per_size
def centre(size: int, device: torch.device) -> Float[Tensor, "size size"]:
    """The filter that leaves its input as it is."""
    middle = torch.arange(size, device=device) == size // 2
    return (middle[:, None] & middle).float()


def _convolve(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(image, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


class _DepthwiseConv5(torch.autograd.Function):
    """A depthwise 5x5 convolution whose filter gradient comes from four 3x3 ones.

    A CPU has a fast kernel for the gradient of 3x3 filters alone; the 5x5 one is ten times slower.
    """

    @staticmethod
    def forward(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return _convolve(image, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, weight = ctx.saved_tensors
        dim, (h, w) = len(weight), image.shape[-2:]
        padded = to_image(F.pad(to_map(image), (0, 0, 2, 2, 2, 2)))
        taps = torch.empty_like(weight)
        for y in (0, 2):
            for x in (0, 2):  # the middle row and column of taps come twice, and are the same
                part = padded[:, :, y : y + h + 2, x : x + w + 2]
                taps[:, :, y : y + 3, x : x + 3] = conv2d_weight(
                    part, (dim, 1, 3, 3), grad, groups=dim
                )
        moved = conv2d_input(image.shape, weight, grad, padding=2, groups=dim)
        return moved, taps, grad.sum((0, 2, 3))
