import re
from types import SimpleNamespace

import pytest
import torch
from attention_core import CheckpointError, golden_cases, standardise
from gateformer import VARIANTS, Gated, Gateformer, GateformerConfig
from gateformer import model as module
from gateformer.claims import pin
from torch import Tensor, nn

SMALL = {"lookback": 12, "horizon": 5, "patch": 4, "stride": 3, "dim": 16, "feed_forward": 16}
SMALL |= {"layers": 1, "heads": 2}


def model(**changes: object) -> Gateformer:
    return Gateformer(GateformerConfig(**{**SMALL, **changes})).eval()


def test_series_see_each_other_only_through_the_second_gate() -> None:
    net, x = model(), torch.randn(2, 12, 9)
    other = x.clone()
    other[..., 1] += torch.randn(12)
    assert not net(other)[..., 0].equal(net(x)[..., 0])
    pin(net.interaction_gate, 1)
    torch.testing.assert_close(net(other)[..., 0], net(x)[..., 0])
    torch.testing.assert_close(net(x)[..., 3], net(x[..., 3:4])[..., 0])


def test_memory_of_the_temporal_path_is_bounded_without_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, x = model(), torch.randn(3, 12, 11)
    seen: list[int] = []
    hook = net.temporal.encoder.register_forward_hook(lambda _, given, out: seen.append(len(out)))
    whole = net(x)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 7 * net.config.patches)
    with torch.no_grad():
        torch.testing.assert_close(net(x), whole)
    assert seen == [33, 7, 7, 7, 7, 5]
    hook.remove()


def test_gates_are_the_shares_that_are_mixed() -> None:
    net, x = model(), torch.randn(2, 12, 6)
    whole_window, own = net.gates(x)
    assert whole_window.shape == own.shape == (2, 6, 16)
    for share in (whole_window, own):
        assert 0 < share.min() < share.max() < 1
    pin(net.embedding_gate, 0)
    pin(net.interaction_gate, 1)
    whole_window, own = net.gates(x)
    assert whole_window.max() < 1e-6
    assert own.min() > 1 - 1e-6


def test_layers_start_alike_only_when_asked() -> None:
    for identical in (True, False):
        first, second = model(layers=2, identical_layers=identical).variate_encoder
        assert first.qkv.weight.equal(second.qkv.weight) == identical
        assert first.qkv.weight is not second.qkv.weight


def test_dropout_acts_in_training_only() -> None:
    net, x = model(dropout=0.5), torch.randn(2, 12, 3)
    assert net(x).equal(net(x))
    net.train()
    assert not net(x).equal(net(x))


class Base(nn.Module):
    """The smallest forecaster in three steps; a mark becomes a token."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(lookback=12, horizon=5, dim=16)
        self.embedding, self.mix = nn.Linear(12, 16), nn.Linear(16, 16)
        self.projection = nn.Linear(16, 5)
        self.normalise = standardise

    def embed(self, window: Tensor, marks: Tensor | None) -> Tensor:
        tokens = window if marks is None else torch.cat([window, marks], -1)
        return self.embedding(tokens.mT)

    def interact(self, tokens: Tensor) -> Tensor:
        return self.mix(tokens + tokens.mean(1, keepdim=True))

    def project(self, tokens: Tensor) -> Tensor:
        return self.projection(tokens).mT

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        window, mean, deviation = self.normalise(x)
        tokens = self.interact(self.embed(window, marks))[:, : x.shape[2]]
        return self.project(tokens) * deviation + mean


def test_the_plug_in_leaves_the_other_forecaster_where_its_gates_say_so() -> None:
    base = Base()
    gated = Gated(base, patch=4, stride=3, heads=2).eval()
    x, marks = torch.randn(2, 12, 7), torch.rand(2, 12, 2)
    assert gated(x, marks).shape == (2, 5, 7)
    assert not gated(x, marks).allclose(gated(x, marks + 1))
    pin(gated.embedding_gate, 1)
    pin(gated.interaction_gate, 0)
    torch.testing.assert_close(gated(x, marks), base(x, marks))
    torch.testing.assert_close(gated(x), base(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "GateformerConfig.horizon=0: must be an integer of at least 1"),
        ({"stride": 0}, "GateformerConfig.stride=0: must be an integer of at least 1"),
        ({"patch": 16}, "GateformerConfig.patch=16: must be at most lookback + stride=15"),
        ({"dim": 15, "heads": 3}, "GateformerConfig.dim=15: must be even"),
        ({"heads": 3}, "GateformerConfig.heads=3: must divide dim=16"),
        ({"dropout": 1.0}, "GateformerConfig.dropout=1.0: must be in [0, 1)"),
    ],
)
def test_bad_configurations_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GateformerConfig(**{**SMALL, **changes})


def test_windows_that_do_not_fit_are_named() -> None:
    expected = re.escape("x has shape [2, 11, 3]: must be [batch, lookback=12, variates]")
    for call in (model(), model().gates, Gated(Base(), heads=2)):
        with pytest.raises(ValueError, match=expected):
            call(torch.randn(2, 11, 3))


def test_checkpoints_that_do_not_fit_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"not a Gateformer checkpoint: patch_embedding\.val"):
        Gateformer.from_official({"conv.weight": torch.ones(1)}, heads=4)
    state = golden_cases("gateformer")[-1].state_dict()
    with pytest.raises(CheckpointError, match="stride 4: the file has 13 patches of 8 steps for a"):
        Gateformer.from_official(state, heads=4, stride=4)
    with pytest.raises(ValueError, match="heads=5: must divide dim=64"):
        Gateformer.from_official(state, heads=5)
    state["extra.weight"] = state.pop("enc_variate.layers.0.norm1.bias")
    with pytest.raises(CheckpointError, match=r"missing: variate_encoder\.0\.attention_norm\.bias"):
        Gateformer.from_official(state, heads=4)


def test_a_stride_is_asked_for_only_where_several_fit() -> None:
    dim, state = 4, golden_cases("gateformer")[-1].state_dict()
    model = Gateformer.from_official({"state_dict": state}, heads=4)
    assert (model.config.stride, model.config.patches) == (8, 13)
    net = Gateformer(GateformerConfig(**{**SMALL, "stride": 7, "dim": dim}))
    assert net.config.patches == 3
    state |= {
        "patch_embedding.position_embedding.pe": torch.zeros(1, 5000, dim),
        "patch_embedding.value_embedding.weight": torch.ones(dim, 4),
        "project_embedding.value_embedding.weight": torch.ones(dim, 12),
        "head.linear.weight": torch.ones(dim, 3 * dim),
    }
    with pytest.raises(CheckpointError, match=r"stride not told: .* fit the strides 5, 6, 7, 8"):
        Gateformer.from_official(state, heads=2)


def test_variants_are_the_published_ones() -> None:
    assert len(VARIANTS) == 9 * 4
    assert VARIANTS["gateformer_etth1_336"].dim == 128
    assert VARIANTS["gateformer_ecl_192"].layers == 4
    assert VARIANTS["gateformer_exchange_720"].heads == 4
    assert VARIANTS["gateformer_weather_720"].feed_forward == 512
    assert VARIANTS["gateformer_pems07_3"].horizon == 3
