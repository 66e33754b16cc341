"""The dynamic convolution against loops, and against its derivatives."""

import pytest
import torch
from dlgsanet import dynamic, dynamic_convolution
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor


def by_loops(image: Tensor, kernels: Tensor) -> Tensor:
    side, (height, width) = int(kernels.shape[2] ** 0.5), image.shape[2:]
    edge, share = side // 2, image.shape[1] // kernels.shape[1]
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for tap in range(side**2):
                v, u = y + tap // side - edge, x + tap % side - edge
                if 0 <= v < height and 0 <= u < width:
                    weight = kernels[:, :, tap, y, x].repeat_interleave(share, 1)
                    out[:, :, y, x] += weight * image[:, :, v, u]
    return out


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2), st.sampled_from([1, 3, 5]), st.integers(1, 6), st.integers(1, 6))
def test_it_is_the_sum_over_the_kernel(batch: int, side: int, height: int, width: int) -> None:
    image = torch.randn(batch, 6, height, width, dtype=torch.float64)
    kernels = torch.randn(batch, 2, side**2, height, width, dtype=torch.float64)
    expected = by_loops(image, kernels)
    torch.testing.assert_close(dynamic_convolution(image, kernels), expected)
    torch.testing.assert_close(dynamic.reference(image, kernels), expected)


def test_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "CACHE", 4 * 5 * 8)  # a row at a time
    image = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(1, 2, 9, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dynamic_convolution, (image, kernels))


def test_layouts_and_precisions() -> None:
    image = torch.randn(2, 6, 7, 8).contiguous(memory_format=torch.channels_last)
    kernels = torch.randn(2, 3, 7, 8, 9).movedim(-1, 2)
    expected = dynamic.reference(image, kernels)
    torch.testing.assert_close(dynamic_convolution(image, kernels), expected)
    half = dynamic_convolution(image.bfloat16(), kernels)
    assert half.dtype == torch.bfloat16
    assert (half - expected).abs().max() < 0.1
    torch.library.opcheck(dynamic._dynamic, (image.requires_grad_(), kernels.requires_grad_()))


def test_messages() -> None:
    with pytest.raises(ValueError, match="6 channels do not fall into 4 groups"):
        dynamic_convolution(torch.rand(1, 6, 4, 4), torch.rand(1, 4, 9, 4, 4))
    for taps in (4, 8):
        with pytest.raises(ValueError, match=f"{taps} weights at a position: must be an odd"):
            dynamic_convolution(torch.rand(1, 6, 4, 4), torch.rand(1, 2, taps, 4, 4))
