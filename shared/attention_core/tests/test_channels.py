"""Attention between channels against its definition."""

import pytest
import torch
import torch.nn.functional as F
from attention_core import channel_cosines, channels, mix_channels
from einops import rearrange
from torch import Tensor


def expected_cosines(query: Tensor, key: Tensor, heads: int) -> Tensor:
    parts = (rearrange(x, "b n (heads d) -> b heads d n", heads=heads) for x in (query, key))
    query, key = (F.normalize(x, dim=-1) for x in parts)
    return query @ key.mT


def maps(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
    return [x.requires_grad_() for x in made]


@pytest.mark.parametrize("most", [0, 96])
@pytest.mark.parametrize("heads", [1, 3])
def test_cosines_and_their_gradients(
    monkeypatch: pytest.MonkeyPatch, most: int, heads: int
) -> None:
    monkeypatch.setattr(channels, "ALL_PAIRS", most)
    query, key, _ = maps(2, 7, 6)
    cosines, expected = channel_cosines(query, key, heads), expected_cosines(query, key, heads)
    torch.testing.assert_close(cosines, expected)
    with torch.no_grad():
        torch.testing.assert_close(channel_cosines(query, key, heads), expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(cosines, (query, key), grad),
        torch.autograd.grad(expected, (query, key), grad),
    )


def test_a_channel_of_zeros_has_no_direction() -> None:
    query, key, _ = (x.detach() for x in maps(1, 5, 4))
    query[..., 0] = 0
    query.requires_grad_()
    cosines = channel_cosines(query, key, 2)
    assert (cosines[0, 0, 0] == 0).all()
    cosines[0, 0, 1].sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("pixels", [9, 4096])
def test_mixing_and_its_gradients(pixels: int) -> None:
    value = torch.randn(2, pixels, 48, requires_grad=True)
    weights = torch.randn(2, 3, 16, 16).softmax(-1).requires_grad_()
    out = torch.randn(40, 48, requires_grad=True)
    mixed = mix_channels(value, weights, out)
    by_head = rearrange(value, "b n (heads d) -> b heads d n", heads=3)
    expected = rearrange(weights @ by_head, "b heads d n -> b n (heads d)") @ out.mT
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=1e-4)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(mixed, (value, weights, out), grad),
        torch.autograd.grad(expected, (value, weights, out), grad),
        atol=1e-3, rtol=1e-3,
    )  # fmt: skip
