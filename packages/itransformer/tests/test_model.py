import re

import pytest
import torch
from attention_core import CheckpointError, golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from itransformer import VARIANTS, ITransformer, ITransformerConfig
from itransformer.model import ChannelIndependent

SMALL = {"lookback": 12, "horizon": 5, "dim": 16, "feed_forward": 16, "layers": 1, "heads": 2}


def model(**changes: object) -> ITransformer:
    return ITransformer(ITransformerConfig(**{**SMALL, **changes})).eval()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 17), st.integers(1, 4), st.sampled_from(["full", "flow", "prob", "lsh"]))
def test_any_number_of_variates_and_windows(variates: int, batch: int, attention: str) -> None:
    net = model(attention=attention)
    x, marks = torch.randn(batch, 12, variates), torch.rand(batch, 12, 4)
    forecast = net(x, marks)
    assert forecast.shape == (batch, 5, variates)
    assert forecast.isfinite().all()


def test_the_order_of_the_variates_does_not_matter() -> None:
    net, x, marks = model(), torch.randn(2, 12, 9), torch.rand(2, 12, 4)
    order = torch.randperm(9)
    torch.testing.assert_close(net(x[..., order], marks), net(x, marks)[..., order])


def test_variates_see_each_other_and_the_marks() -> None:
    net, x, marks = model(), torch.randn(2, 12, 9), torch.rand(2, 12, 4)
    other = x.clone()
    other[..., 1] += torch.randn(12)
    assert not net(other, marks)[..., 0].equal(net(x, marks)[..., 0])
    assert not net(x, marks + 0.1).equal(net(x, marks))
    alone = ChannelIndependent(net)
    torch.testing.assert_close(alone(other, marks)[..., 0], alone(x, marks)[..., 0])
    torch.testing.assert_close(alone(x, marks)[..., 3], net(x[..., 3:4], marks)[..., 0])


def test_normalisation_makes_the_forecast_follow_level_and_scale() -> None:
    net, x, marks = model().double(), torch.randn(2, 12, 3).double(), torch.rand(2, 12, 4).double()
    torch.testing.assert_close(
        net(100 * x + 7, marks), 100 * net(x, marks) + 7, rtol=1e-2, atol=1e-2
    )
    plain = model(use_norm=False).double()
    assert not torch.allclose(plain(100 * x + 7, marks), 100 * plain(x, marks) + 7, rtol=1e-2)


def test_constant_and_half_precision_windows_stay_finite() -> None:
    net, marks = model(), torch.rand(1, 12, 4)
    constant = torch.full((1, 12, 3), 5.0)
    assert (net(constant, marks) - 5).abs().max() < 0.1
    half = model().to(torch.bfloat16)
    large = 1e4 * torch.randn(1, 12, 3, dtype=torch.bfloat16)
    forecast = half(large, marks.bfloat16())
    assert forecast.dtype == torch.bfloat16
    assert forecast.isfinite().all()


def test_attention_maps_are_the_weights_that_are_applied() -> None:
    net, x, marks = model(layers=2), torch.randn(2, 12, 6), torch.rand(2, 12, 4)
    maps = net.attention_maps(x, marks)
    assert [weights.shape for weights in maps] == [(2, 2, 10, 10)] * 2
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 10))
    with pytest.raises(ValueError, match="attention='flow' has no map; only 'full' has one"):
        model(attention="flow").attention_maps(x, marks)


def test_draws_fix_the_random_attentions() -> None:
    x, marks = torch.randn(2, 12, 9), torch.rand(2, 12, 4)
    for attention in ("prob", "lsh"):
        net = model(attention=attention)
        layer = net.layers[0].attention
        if attention == "prob":
            draws = [torch.randint(13, (13, layer.samples(13)))]
        else:
            draws = [layer.rotations(torch.randn(1, 13, 16))]
        assert net(x, marks, draws).equal(net(x, marks, draws))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "ITransformerConfig.horizon=0: must be an integer of at least 1"),
        ({"heads": 17}, "ITransformerConfig.heads=17: must be at most dim=16"),
        ({"dropout": 1.0}, "ITransformerConfig.dropout=1.0: must be in [0, 1)"),
        ({"attention": "sparse"}, "must be one of 'full', 'flow', 'prob', 'lsh'"),
        ({"activation": "tanh"}, "must be one of 'gelu', 'relu'"),
        ({"marks": -1}, "ITransformerConfig.marks=-1: must be 0 or more"),
        ({"attention": "lsh", "heads": 3}, "lsh needs a divisor of dim"),
        ({"attention": "flow", "use_norm": False}, "'flow' attention always normalises"),
    ],
)
def test_bad_configurations_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ITransformerConfig(**{**SMALL, **changes})


def test_windows_and_marks_that_do_not_fit_are_named() -> None:
    net, x, marks = model(), torch.randn(2, 12, 3), torch.rand(2, 12, 4)
    with pytest.raises(
        ValueError, match=re.escape("x has shape [2, 11, 3]: must be [batch, lookback=12")
    ):
        net(x[:, 1:], marks)
    with pytest.raises(ValueError, match="marks missing: this model takes 4 time features"):
        net(x)
    with pytest.raises(
        ValueError, match=re.escape("marks have shape [2, 12, 3]: must be [2, 12, 4]")
    ):
        net(x, marks[..., :3])


def test_checkpoints_that_do_not_fit_are_named() -> None:
    told = {"heads": 2, "use_norm": True, "marks": 0}
    with pytest.raises(CheckpointError, match="not an iTransformer checkpoint: enc_embedding"):
        ITransformer.from_official({"conv.weight": torch.ones(1)}, **told)
    case = next(c for c in golden_cases("itransformer") if c.name == "backbones")
    state = case.state_dict()
    with pytest.raises(
        CheckpointError, match="attention='lsh': the checkpoint's layout is that of"
    ):
        ITransformer.from_official(state, **{**told, "attention": "lsh"})
    state["extra.weight"] = state.pop("encoder.norm.bias")
    with pytest.raises(CheckpointError, match=r"missing: norm\.bias; unexpected: extra\.weight"):
        ITransformer.from_official(state, **told)


def test_variants_are_the_published_ones() -> None:
    assert len(VARIANTS) == 13 * 4 + 4
    assert VARIANTS["itransformer_pems04_96"].dim == 1024
    assert not VARIANTS["itransformer_pems08_48"].use_norm
    assert VARIANTS["itransformer_pems08_24"].use_norm
    assert VARIANTS["itransformer_solar_96"].marks == 0
    assert VARIANTS["itransformer_etth1_336"].dim == 512
    assert VARIANTS["inverted_reformer"].attention == "lsh"
