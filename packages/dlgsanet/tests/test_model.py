"""Configurations, shapes, windows of the converter, training behaviour and messages."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dlgsanet import VARIANTS, DLGSANet
from dlgsanet.model import GlobalAttention, window_starts
from dlgsanet.paper import PAPER
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

TINY = PAPER.tiny[0]


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(1, 23), st.integers(1, 23)
)
def test_images_of_any_size(scale: int, channels: int, batch: int, height: int, width: int) -> None:
    model = DLGSANet(replace(TINY, scale=scale, channels=channels, groups=1))
    image = torch.rand(batch, channels, height, width)
    for mode in (True, False):
        out = model.train(mode)(image)
        assert out.shape == (batch, channels, scale * height, scale * width)
        assert out.isfinite().all()


@pytest.mark.parametrize(
    ("side", "starts"),
    [(20, [0]), (48, [0]), (49, [0, 1]), (60, [0, 12]), (96, [0, 48]), (97, [0, 25, 49])],
)
def test_where_windows_begin(side: int, starts: list[int]) -> None:
    assert window_starts(side, 48) == starts


@given(st.integers(1, 300), st.integers(1, 60))
def test_windows_cover_the_side(side: int, window: int) -> None:
    starts = window_starts(side, window)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + min(side, window) == side
    assert all(b - a <= window for a, b in itertools.pairwise(starts))


def by_window(layer: GlobalAttention, x: Tensor, window: int) -> Tensor:
    """The converter on one map, window after window, heads one after another."""
    qkv = layer.around(rearrange(layer.qkv(x), "h w d -> 1 d h w"))[0]
    height, width = x.shape[:2]
    total, count = torch.zeros(x.shape[-1], height, width), torch.zeros(height, width)
    for top in window_starts(height, window):
        for left in window_starts(width, window):
            place = ..., slice(top, top + window), slice(left, left + window)
            query, key, value = (
                part.unflatten(0, (layer.heads, -1)).flatten(2) for part in qkv[place].chunk(3)
            )
            query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
            weights = (query @ key.mT * layer.temperature).relu()
            total[place] += (weights @ value).view_as(total[place])
            count[place] += 1
    return F.linear((total / count).permute(1, 2, 0), layer.proj.weight)


def test_evaluation_averages_over_windows_and_training_sees_all() -> None:
    torch.manual_seed(0)
    layer = GlobalAttention(replace(TINY, window=5))
    x = torch.randn(2, 13, 8, 12)
    with torch.no_grad():
        layer.temperature.uniform_(1, 5)
        for mode, window in ((False, 5), (True, 99)):
            expected = torch.stack([by_window(layer, image, window) for image in x])
            torch.testing.assert_close(layer.train(mode)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid", "identity", "softmax"])
def test_activations(activation: str) -> None:
    layer = GlobalAttention(replace(TINY, activation=activation))
    query, key = torch.randn(2, 1, 30, 12)
    logits = torch.stack(
        [F.normalize(q, dim=0).mT @ F.normalize(k, dim=0) for q, k in zip(
            query[0].split(6, 1), key[0].split(6, 1), strict=True)]
    )  # fmt: skip
    apply = {"identity": lambda z: z, "softmax": lambda z: z.softmax(-1)}
    expected = apply.get(activation, getattr(torch.nn.functional, activation, None))(logits)
    torch.testing.assert_close(layer.weights(query, key)[0], expected)


def test_black_images_have_finite_gradients() -> None:
    model = DLGSANet(TINY).train()
    image = model.mean.expand(1, 3, 8, 8).clone().requires_grad_()
    model(image).square().mean().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_variants() -> None:
    assert len(VARIANTS) == 9
    assert [VARIANTS[f"dlgsanet_x{scale}"].window for scale in (2, 3, 4)] == [96, 72, 48]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0}, "scale=0"),
        ({"scale": 5, "head": "steps"}, "scale=5: must be 3 or a power of two"),
        ({"head": "same"}, "scale=2: must be 1 for head='same'"),
        ({"head": "both"}, "head='both': must be one of"),
        ({"activation": "tanh"}, "activation='tanh': must be one of"),
        ({"local": False, "activation": None}, "a network needs local blocks, or"),
        ({"kernel": 4}, "kernel=4: must be odd"),
        ({"kernel_channels": 5}, "kernel_channels=5: does not divide dim=12"),
        ({"heads": 5}, "heads=5: does not divide dim=12"),
        ({"dim": 2, "kernel_channels": 2}, "dim=2: must be at least 4"),
        ({"ratios": (2.0, 0.01)}, "no hidden channels"),
        ({"window": 0}, "window=0: must be None or at least 1"),
        ({"image_range": 0.0}, "image_range=0.0: must be positive"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_images_that_do_not_fit() -> None:
    model = DLGSANet(TINY)
    with pytest.raises(ValueError, match="0 x 8"):
        model(torch.rand(1, 3, 0, 8))
    with pytest.raises(ValueError, match="4 channels, the model takes 3"):
        model(torch.rand(1, 4, 8, 8))
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
