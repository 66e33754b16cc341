"""Linear layers of tokens: by way of what is fastest, keeping for the backward pass the least."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attention_core.strips import in_strips

ONEDNN = torch.backends.mkldnn.is_available()
ONEDNN_ELEMENTS = 20481
"""Of an input, from which on PyTorch gives a dilated convolution of one image to oneDNN."""
ONEDNN_TOKENS, ONEDNN_PRODUCTS = 96, 6_000_000
"""Tokens and multiplications from which on oneDNN's way with the weights pays."""


def token_linear(
    x: Float[Tensor, "*batch tokens dim"],
    weight: Float[Tensor, "out dim"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "*batch tokens out"]:
    """``F.linear``; over many tokens on a float32 CPU by way of a 1x1 convolution.

    PyTorch hands float32 matrix products to MKL and convolutions to oneDNN, which on an AMD CPU is
    up to twice as fast in either pass: MKL leaves AVX-512 to Intel's.
    """
    if not _by_convolution(x, weight):
        return F.linear(x, weight, bias)
    return _tokens(pointwise(_pixels(x), weight[..., None, None], bias), x)


def map_linear(
    x: Float[Tensor, "b tokens dim"], weight: Float[Tensor, "b out dim"]
) -> Float[Tensor, "b tokens out"]:
    """:func:`token_linear` with a weight of its own for each map."""
    if not (len(x) and _by_convolution(x[0], weight[0])):
        return x @ weight.mT
    return torch.stack([token_linear(*pair) for pair in zip(x, weight, strict=True)])


def pointwise(
    x: Float[Tensor, "b dim h w"],
    weight: Float[Tensor, "out dim 1 1"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "b out h w"]:
    """A 1x1 convolution; fast on a CPU where the channels of ``x`` lie last in memory."""
    # A dilation does nothing to 1x1 filters, but without one PyTorch keeps a single image on a
    # single thread from oneDNN.
    return F.conv2d(x, weight, bias, dilation=2 if _suits_onednn(x) else 1)


class TokenLinear(nn.Linear):
    """``nn.Linear`` by way of :func:`token_linear`."""

    def forward(self, x: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch tokens out"]:
        return token_linear(x, self.weight, self.bias)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution by way of :func:`pointwise`."""

    def __init__(self, dim: int, out: int, *, bias: bool = True) -> None:
        super().__init__(dim, out, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b out h w"]:
        return pointwise(x, self.weight, self.bias)


class TokenConv(nn.Conv2d):
    """A 1x1 convolution of maps whose last axis is the channels, by way of :func:`token_linear`."""

    def __init__(self, dim: int, out: int, *, bias: bool = True) -> None:
        super().__init__(dim, out, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w out"]:
        return token_linear(x, self.weight.flatten(1), self.bias)


class GELU(nn.GELU):
    """``nn.GELU``, which writes over its input where nothing asks for gradients.

    On a large map new memory costs more than the function itself.
    """

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if torch.is_grad_enabled():
            return super().forward(input)
        return torch.ops.aten.gelu_(input, approximate=self.approximate)


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, for each token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = TokenLinear(dim, hidden)
        self.fc2 = TokenLinear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch tokens dim"]:
        tokens = x.reshape(1, -1, 1, x.shape[-1])
        return in_strips(self._apply_layers, tokens, width=self.fc1.out_features).reshape(x.shape)

    def _apply_layers(self, x: Tensor) -> Tensor:
        return gelu_linear(self.fc1(x), self.fc2)


def gelu_linear(
    x: Float[Tensor, "*batch tokens dim"], linear: nn.Module, dropout: nn.Dropout | None = None
) -> Float[Tensor, "*batch tokens out"]:
    """``linear(F.gelu(x))``, of which training keeps ``x`` alone; unless dropout comes between.

    Without gradients ``x`` is overwritten.
    """
    if dropout is not None and dropout.training and dropout.p:
        return linear(dropout(F.gelu(x)))
    if not torch.is_grad_enabled():
        return linear(torch.ops.aten.gelu_(x))
    if keeps_all(x) or not _is_plain(linear, TokenLinear):
        return linear(F.gelu(x))
    return _GELULinear.apply(x, linear.weight, linear.bias)


def norm_linear(
    x: Float[Tensor, "*batch tokens dim"], norm: nn.Module, linear: nn.Module
) -> Float[Tensor, "*batch tokens out"]:
    """``linear(norm(x))`` with a layer norm, of which training keeps ``x`` alone."""
    if keeps_all(x) or not (_is_plain(linear, TokenLinear) and _is_plain(norm, nn.LayerNorm)):
        return linear(norm(x))
    return _NormLinear.apply(x, norm.weight, norm.bias, norm.eps, linear.weight, linear.bias)


class _GELULinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return token_linear(F.gelu(x), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        moved, *parameters = _linear_backward(grad, F.gelu(x), weight, ctx.needs_input_grad[2])
        return torch.ops.aten.gelu_backward(moved, x), *parameters


class _NormLinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, scale: Tensor, shift: Tensor, eps: float, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return token_linear(F.layer_norm(x, x.shape[-1:], scale, shift, eps), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, scale, shift, ctx.eps, weight, _ = inputs
        ctx.save_for_backward(x, scale, shift, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight = ctx.saved_tensors
        shape = x.shape[-1:]
        normal, *moments = torch.native_layer_norm(x, shape, scale, shift, ctx.eps)
        moved, *parameters = _linear_backward(grad, normal, weight, ctx.needs_input_grad[5])
        grads = torch.ops.aten.native_layer_norm_backward(
            moved, x, shape, *moments, scale, shift, ctx.needs_input_grad[:3]
        )
        return *grads, None, *parameters


def keeps_all(x: Tensor) -> bool:
    """Whether the plain operations serve better: a compiler decides for itself what to keep."""
    compiles = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return compiles or not torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether the module does what its kind does: no adapter, parametrisation or hook."""
    return type(module) is kind and not (module._forward_hooks or module._forward_pre_hooks)


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, biased: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of `token_linear` for its input, weight and bias."""
    rows = grad.flatten(0, -2)
    shift = rows.sum(0) if biased else None
    if not _by_convolution(x, weight):
        return grad @ weight, rows.mT @ x.flatten(0, -2), shift
    moved, turned, _ = torch.ops.aten.convolution_backward(
        _pixels(grad), _pixels(x), weight[..., None, None], None,
        [1, 1], [0, 0], [2, 2], False, [0, 0], 1, (True, True, False),
    )  # fmt: skip
    return _tokens(moved, x), turned.flatten(1), shift


def _by_convolution(x: Tensor, weight: Tensor) -> bool:
    tokens = x.shape[:-1].numel()
    many = tokens >= ONEDNN_TOKENS and tokens * weight.numel() >= ONEDNN_PRODUCTS
    return many and _suits_onednn(x)


def _suits_onednn(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or not ONEDNN:
        return False
    return x.numel() >= ONEDNN_ELEMENTS and not torch.is_autocast_enabled("cpu")


def _pixels(x: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "1 dim 1 pixels"]:
    """One row of pixels, channels last: the tokens as they lie."""
    return x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)


def _tokens(
    pixels: Float[Tensor, "1 dim 1 pixels"], like: Float[Tensor, "*batch tokens _"]
) -> Float[Tensor, "*batch tokens dim"]:
    return pixels.permute(0, 2, 3, 1).reshape(*like.shape[:-1], -1)
