"""Strips: the same values and gradients as whole maps, and little kept for the backward pass."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from attention_core import in_strips, strips
from torch import Tensor


def two_convolutions(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    x = x.permute(0, 3, 1, 2)
    wide = F.gelu(F.conv2d(x, first, padding=1))
    return F.conv2d(wide, second, padding=1).permute(0, 2, 3, 1)


def inputs(batch: int, height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, height, width, 3), (8, 3, 3, 3), (4, 8, 3, 3)
    made = [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]
    return [x.requires_grad_() for x in made]


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "STRIP_BYTES", 2 * 4 * 8 * 5)
    monkeypatch.setattr(strips, "LEARNING_STRIP_BYTES", 2 * 4 * 8 * 5)
    monkeypatch.setattr(strips, "LEAST_HALOS", 1)


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 4, 5), (5, 1, 5), (2, 9, 1), (4, 2, 2)])
def test_strips_equal_the_whole(shape: tuple[int, int, int]) -> None:
    tensors = inputs(*shape)
    whole, stripped = (
        two_convolutions(*tensors),
        in_strips(two_convolutions, *tensors, width=8, halo=2),
    )
    torch.testing.assert_close(stripped, whole)
    with torch.no_grad():
        torch.testing.assert_close(in_strips(two_convolutions, *tensors, width=8, halo=2), whole)
    grad = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, tensors, grad)
    torch.testing.assert_close(torch.autograd.grad(stripped, tensors, grad), expected)


@pytest.mark.usefixtures("two_rows")
def test_too_small_a_halo_shows() -> None:
    tensors = inputs(1, 7, 5)
    stripped = in_strips(two_convolutions, *tensors, width=8, halo=1)
    assert not torch.allclose(stripped, two_convolutions(*tensors))


@pytest.mark.usefixtures("two_rows")
def test_weights_that_do_not_learn_get_no_gradient() -> None:
    x, first, second = inputs(2, 6, 5)
    first.requires_grad_(False)
    in_strips(two_convolutions, x, first, second, width=8, halo=2).sum().backward()
    assert [tensor.grad is None for tensor in (x, first, second)] == [False, True, False]


@pytest.mark.usefixtures("two_rows")
def test_an_input_that_does_not_learn_gets_no_gradient() -> None:
    x, first, second = inputs(2, 6, 5)
    x.requires_grad_(False)
    stripped = in_strips(two_convolutions, x, first, second, width=8, halo=2)
    expected = torch.autograd.grad(two_convolutions(x, first, second).sum(), (first, second))
    found = torch.autograd.grad(stripped.sum(), (first, second))
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("two_rows")
def test_only_the_arguments_are_kept() -> None:
    tensors = inputs(2, 8, 5)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (kept.append(x.shape), x)[1], lambda x: x
    ):
        in_strips(two_convolutions, *tensors, width=8, halo=2)
    assert kept == [x.shape for x in tensors]


@pytest.mark.usefixtures("two_rows")
def test_no_strip_is_wider_than_asked() -> None:
    rows: list[int] = []

    def spy(x: Tensor, scale: Tensor) -> Tensor:
        rows.append(x.shape[0] * x.shape[1])
        return x * scale

    x = torch.randn(3, 7, 5, 8)
    in_strips(spy, x, torch.tensor(2.0), width=8)
    assert max(rows) <= 2
    assert sum(rows) == 21


@pytest.mark.usefixtures("two_rows")
def test_compiled_it_is_one_graph() -> None:
    tensors = inputs(2, 6, 5)
    stripped = partial(in_strips, two_convolutions, width=8, halo=2)
    compiled = torch.compile(stripped, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), two_convolutions(*tensors))


@pytest.mark.usefixtures("two_rows")
def test_gradients_have_gradients() -> None:
    tensors = inputs(1, 5, 5)
    stripped = partial(in_strips, two_convolutions, width=8, halo=2)
    assert torch.autograd.gradgradcheck(stripped, tensors)


@pytest.mark.usefixtures("two_rows")
def test_function_transforms() -> None:
    tensors = [x.detach() for x in inputs(2, 6, 5)]
    stripped = partial(in_strips, two_convolutions, width=8, halo=2)
    found, expected = (
        torch.func.grad(lambda *t, f=f: f(*t).square().sum(), argnums=(0, 1, 2))(*tensors)
        for f in (stripped, two_convolutions)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 4, 5)])
def test_what_enlarges_gives_more_rows(shape: tuple[int, int, int]) -> None:
    x, first, _ = inputs(*shape)

    def enlarge(x: Tensor, first: Tensor) -> Tensor:
        wide = F.conv2d(x.permute(0, 3, 1, 2), first, padding=1)
        return F.conv2d(F.pixel_shuffle(wide, 2), first[:, :2], padding=1).permute(0, 2, 3, 1)

    stripped = in_strips(enlarge, x, first, width=8, halo=2, scale=2)
    torch.testing.assert_close(stripped, enlarge(x, first))


@pytest.mark.usefixtures("two_rows")
def test_without_tensors_strips_are_for_inference_alone() -> None:
    calls: list[int] = []
    linear = torch.nn.Linear(8, 8)

    def spy(x: Tensor) -> Tensor:
        calls.append(x.shape[1])
        return linear(x)

    x = torch.randn(1, 6, 5, 8, requires_grad=True)
    in_strips(spy, x, width=8).sum().backward()
    assert calls == [6]
    assert linear.weight.grad is not None
    with torch.no_grad():
        in_strips(spy, x, width=8)
    assert calls == [6, 2, 2, 2]
