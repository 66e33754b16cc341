"""Linear layers of tokens against torch's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_core import (
    GELU,
    FeedForward,
    PointwiseConv,
    TokenLinear,
    gelu_linear,
    norm_linear,
    token_linear,
)
from attention_core.linear import ONEDNN
from torch import Tensor, nn

SIZES = [((2, 197), (64, 300)), ((3, 5), (6, 4)), ((0, 5), (6, 4))]
"""By way of oneDNN, by way of MKL, nothing."""


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("shape", "dims", "convolution"),
    [
        ((2, 197), (64, 300), True),
        ((1, 5, 79), (128, 200), True),
        ((30000,), (1, 200), True),
        ((2, 40), (64, 300), False),
        ((97,), (200, 1500), False),  # 19400 elements: PyTorch's own convolution is slow
        ((0, 16), (64, 300), False),
    ],
)
def test_token_linear_is_linear(
    shape: tuple[int, ...], dims: tuple[int, int], convolution: bool, biased: bool
) -> None:
    torch.manual_seed(0)
    layer = TokenLinear(*dims, bias=biased)
    x = torch.randn(*shape, dims[0], requires_grad=True)
    found, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    assert ("Convolution" in graph_of(found)) == (convolution and ONEDNN)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.is_contiguous()
    weight = torch.randn_like(expected)
    wanted = [x, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(found, wanted, weight),
        torch.autograd.grad(expected, wanted, weight),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def graph_of(x: Tensor) -> str:
    """The names of the operations that made ``x``, back along the first inputs."""
    names, node = "", x.grad_fn
    while node is not None:
        names += f"{node.name()} "
        node = node.next_functions[0][0] if node.next_functions else None
    return names


def test_token_linear_keeps_the_autocast_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert token_linear(torch.randn(4, 99, 64), torch.randn(300, 64)).dtype == torch.bfloat16


def after_gelu(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    expected = layer(F.gelu(x))
    return gelu_linear(x, layer), expected


def after_norm(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    norm = nn.LayerNorm(x.shape[-1], eps=1e-3).to(x.dtype)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm_linear(x, norm, layer), layer(norm(x))


@pytest.mark.parametrize("after", [after_gelu, after_norm])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("shape", "dims"), SIZES)
def test_layers_that_keep_their_input_alone(
    shape: tuple[int, ...], dims: tuple[int, int], biased: bool, after: Any
) -> None:
    torch.manual_seed(0)
    layer = TokenLinear(*dims, bias=biased)
    x = torch.randn(*shape, dims[0], requires_grad=True)
    found, expected = after(x, layer)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(expected)
    wanted = [x, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(found, wanted, weight),
        torch.autograd.grad(expected, wanted, weight),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(*after(x, layer), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("after", [after_gelu, after_norm])
def test_layers_that_keep_their_input_alone_differentiate_twice(after: Any) -> None:
    torch.manual_seed(0)
    layer = TokenLinear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: after(x, layer)[0], (x,))


@pytest.mark.parametrize("after", [after_gelu, after_norm])
def test_nothing_else_is_kept(after: Any) -> None:
    layer, x = TokenLinear(64, 300), torch.randn(2, 197, 64, requires_grad=True)
    found = after(x, layer)[0]
    assert found.grad_fn is not None
    kept = found.grad_fn.saved_tensors  # type: ignore[attr-defined]
    assert sum(z.numel() for z in kept) <= x.numel() + layer.weight.numel() + 2 * 64


def test_adapters_and_hooks_see_what_they_would_of_plain_layers() -> None:
    class Adapted(TokenLinear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    x = torch.randn(3, 4, requires_grad=True)
    torch.testing.assert_close(*after_gelu(x, Adapted(4, 2)))
    seen: list[Tensor] = []
    layer = TokenLinear(4, 2)
    layer.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    gelu_linear(x, layer)
    torch.testing.assert_close(seen[0], F.gelu(x))


def test_dropout_comes_between() -> None:
    x, layer, dropout = torch.randn(3, 4, requires_grad=True), TokenLinear(4, 2), nn.Dropout(0.5)
    torch.manual_seed(0)
    found = gelu_linear(x, layer, dropout)
    torch.manual_seed(0)
    torch.testing.assert_close(found, layer(dropout(F.gelu(x))))
    torch.testing.assert_close(gelu_linear(x, layer, dropout.eval()), layer(F.gelu(x)))


def test_both_compile_and_map() -> None:
    layer, x = FeedForward(6, 10), torch.randn(2, 3, 6, requires_grad=True)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    each = torch.func.vmap(torch.func.grad(lambda x: layer(x).sum()))(x)
    torch.testing.assert_close(each, torch.autograd.grad(layer(x).sum(), x)[0])


def test_feed_forward_sees_one_token_at_a_time() -> None:
    layer, x = FeedForward(6, 10), torch.randn(2, 3, 6)
    single = x[1:2, 2:3]
    expected = layer.fc2(F.gelu(layer.fc1(single)))
    torch.testing.assert_close(layer(x)[1:2, 2:3], expected)


@pytest.mark.parametrize("last", [False, True])
def test_a_pointwise_convolution_is_a_convolution(last: bool) -> None:
    layer, twin = PointwiseConv(30, 7), torch.nn.Conv2d(30, 7, 1)
    twin.load_state_dict(layer.state_dict())
    for sides in ((3, 5), (32, 40)):
        x = torch.randn(2, 30, *sides)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        torch.testing.assert_close(layer(x), twin(x))


def test_gelu_writes_over_its_input_in_inference_alone() -> None:
    x, layer = torch.randn(5, 4), GELU()
    expected = F.gelu(x)
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        assert layer(x).data_ptr() == x.data_ptr()
    torch.testing.assert_close(x, expected)
