import torch
from attention_core import standardise


def test_windows_are_standardised_and_come_back() -> None:
    x = 7 + 3 * torch.randn(4, 50, 3, dtype=torch.float64)
    window, mean, deviation = standardise(x)
    torch.testing.assert_close(window * deviation + mean, x)
    torch.testing.assert_close(window.mean(1), torch.zeros(4, 3).double())
    torch.testing.assert_close(
        window.square().mean(1), torch.ones(4, 3).double(), atol=1e-4, rtol=0
    )


def test_no_gradient_flows_through_the_mean() -> None:
    x = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    window, mean, deviation = standardise(x)
    assert not mean.requires_grad
    (window * deviation).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_statistics_of_half_precision_are_float32() -> None:
    window, mean, deviation = standardise(1e4 + torch.randn(2, 9, 3).bfloat16())
    assert window.dtype == torch.bfloat16
    assert mean.dtype == deviation.dtype == torch.float32
