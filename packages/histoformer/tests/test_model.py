"""Configurations, sizes, precision and messages; the losses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from histoformer import Histoformer, HistoformerConfig, pearson, pearson_loss
from histoformer.attention import HistogramAttention, softmax_1
from histoformer.claims import ChannelAttention, with_channel_attention
from histoformer.paper import PAPER
from histoformer.ranking import permute, radix_sort, restore, sort
from hypothesis import given, settings
from hypothesis import strategies as st
from image_restoration_kit import Tiling, enlarge, seam_error

TINY = PAPER.tiny[0]


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 2), st.integers(1, 37), st.integers(1, 37))
def test_any_size_is_padded_and_cropped(batch: int, height: int, width: int) -> None:
    image = torch.rand(batch, 3, height, width)
    assert enlarge(Histoformer(TINY).eval(), image).shape == image.shape


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40))
def test_restoring_undoes_permuting_and_gradients_follow(channels: int, n: int) -> None:
    x = torch.randn(2, channels, n, dtype=torch.float64, requires_grad=True)
    order = torch.randn(2, channels, n).argsort(-1)
    assert restore(permute(x, order), order).equal(x)
    weights = torch.randn_like(x)
    for function, expected in ((permute, restore), (restore, permute)):
        (gradient,) = torch.autograd.grad((function(x, order) * weights).sum(), x)
        assert gradient.equal(expected(weights, order))


def test_several_stacks_share_an_order() -> None:
    x, order = torch.randn(5, 2, 3, 7), torch.randn(2, 3, 7).argsort(-1)
    assert permute(x, order)[3].equal(x[3].gather(-1, order))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 300), st.integers(1, 900))
def test_sorting_by_digits_is_sorting(channels: int, n: int, at_once: int) -> None:
    x = torch.randn(2, channels, n) * 10 ** torch.randint(-38, 38, (2, channels, n)).float()
    x[0, 0, 0], x[1, -1, -1] = torch.inf, -torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histoformer.ranking.SORTED_AT_ONCE", at_once)
        values, order = radix_sort(x)
    assert values.equal(x.sort().values)
    assert x.gather(-1, order).equal(values)


def test_long_rows_are_sorted_by_digits() -> None:
    x = torch.randn(3, 1 << 15)
    assert radix_sort(x)[0].equal(x.sort().values)


def test_the_gradient_of_sorting_goes_where_a_value_came_from() -> None:
    for kind in (torch.float32, torch.float64):
        x, weights = torch.randn(2, 3, 40, dtype=kind), torch.randn(2, 3, 40, dtype=kind)
        found = [
            torch.autograd.grad((sorting(x.requires_grad_())[0] * weights).sum(), x)[0]
            for sorting in (sort, torch.sort)
        ]
        assert found[0].equal(found[1])


def test_softmax_leaves_weight_for_nothing() -> None:
    logits = torch.randn(4, 6)
    found = softmax_1(logits)
    torch.testing.assert_close(found, logits.exp() / (1 + logits.exp().sum(-1, keepdim=True)))
    assert found.sum(-1).max() < 1
    assert softmax_1(torch.tensor([[200.0, 0.0]])).isfinite().all()


def test_a_constant_image_is_all_ties() -> None:
    model = Histoformer(TINY)
    image = torch.full((1, 3, 16, 16), 0.5)
    model(image).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_half_precision_sums_in_single() -> None:
    attention = HistogramAttention(12, 2)
    x = torch.randn(1, 16, 16, 12)
    full, half = attention(x), attention.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).std() < 0.5 * full.std()


def test_tiles_change_the_result_and_say_by_how_much() -> None:
    model, image = Histoformer(TINY).eval(), torch.rand(1, 3, 40, 72)
    tiling = Tiling(tile=32, halo=8)
    difference = (enlarge(model, image, tiling=tiling) - enlarge(model, image)).abs().max()
    seam = seam_error(model, image, tiling)
    assert difference > 0
    assert seam is not None
    assert 0 < seam.largest < 1


def test_channel_attention_takes_the_place_of_every_histogram() -> None:
    model = with_channel_attention(TINY)
    kinds = [type(m) for m in model.modules() if hasattr(m, "temperature")]
    assert set(kinds) == {ChannelAttention}
    assert model(torch.rand(1, 3, 8, 16)).shape == (1, 3, 8, 16)


def test_correlation() -> None:
    x = torch.rand(3, 3, 8, 9)
    expected = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
                for a, b in zip(x, x.flip(0) ** 2, strict=True)]  # fmt: skip
    torch.testing.assert_close(pearson(x, x.flip(0) ** 2), torch.stack(expected))
    assert pearson_loss(2 * x + 1, x).item() == pytest.approx(0, abs=1e-5)
    assert pearson_loss(-x, x).item() == pytest.approx(1, abs=1e-5)


def test_images_without_a_finite_correlation_are_left_out() -> None:
    x, y = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    y[1, 0, 0, 0] = torch.nan
    assert pearson_loss(x, y).item() == pytest.approx(pearson_loss(x[:1], y[:1]).item())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 15}, "dim=15: must be even"),
        ({"dim": 16}, r"int\(16 \* ffn_ratio\) = 42 must be a multiple of 4"),
        ({"dim": 48, "ffn_ratio": 2.66}, "ffn_ratio=2.66: int"),
        ({"heads": (5, 2, 4, 8)}, "5 does not divide a width of 36"),
        ({"heads": (1, 2)}, "must have an entry for each of the four levels"),
        ({"depths": (1, 0, 1, 1)}, "must be an integer of at least 1"),
        ({"refinement": -1}, "refinement=-1: must be an integer of at least 0"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HistoformerConfig(**changes)


def test_images_that_do_not_fit() -> None:
    model = Histoformer(replace(TINY, refinement=0))
    with pytest.raises(ValueError, match="8 x 12: both sides must be multiples of 8"):
        model(torch.rand(1, 3, 8, 12))
    with pytest.raises(ValueError, match="4 channels, the model takes 3"):
        model(torch.rand(1, 4, 8, 8))
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN or infinite"):
        enlarge(model, torch.full((1, 3, 8, 8), torch.nan))
    with pytest.warns(UserWarning, match="divide 8-bit values"):
        enlarge(model, torch.full((1, 3, 8, 8), 255.0))
