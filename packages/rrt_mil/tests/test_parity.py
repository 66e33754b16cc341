"""The authors' numbers, and what `from_official` makes of their checkpoints."""

import re

import pytest
import torch
from attention_core import CheckpointError, GoldenCase, golden_cases
from rrt_mil import R2T, R2TMIL
from rrt_mil.golden import run_golden

CASES = {case.name: case for case in golden_cases("rrt_mil")}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_golden_case(case: GoldenCase) -> None:
    assert case.failures(run_golden(case)) == {}


def test_sizes_are_read_off_the_checkpoint() -> None:
    state = CASES["rrtmil_c16_r50"].state_dict()
    model = R2TMIL.from_official({"model": state}, variant="rrtmil_c16_r50")
    assert model.config == R2TMIL.variants["rrtmil_c16_r50"]
    assert sum(p.numel() for p in model.parameters()) == 2_696_450
    layer = R2T.from_official(state, shortcut=True)
    assert layer.config == R2T.variants["r2t_c16_r50"]
    x = torch.randn(1, 80, 512)
    assert layer(x).equal(model.encoder(x))


@pytest.mark.parametrize(
    ("name", "aggregator"),
    [
        ("aggregator_abmil", "abmil"),
        ("aggregator_clam_sb", "clam_sb"),
        ("aggregator_dsmil", "dsmil"),
    ],
)
def test_aggregator_is_recognised(name: str, aggregator: str) -> None:
    model = R2TMIL.from_official(CASES[name].state_dict(), encoder={"shortcut": True})
    assert model.config.aggregator == aggregator
    assert model.config == model.config.__class__(
        **{**vars(R2TMIL.variants[f"r2t_{aggregator}"]), "encoder": model.config.encoder}
    )


def test_position_encoding_of_values_must_be_named() -> None:
    state = CASES["encoder_bag_sizes"].state_dict()
    place = "layers.0.attn.attn.pe"
    state[f"{place}.weight"], state[f"{place}.bias"] = torch.randn(512, 1, 3, 1), torch.randn(512)
    with pytest.raises(CheckpointError, match="say epeg='value'"):
        R2T.from_official(state)
    assert R2T.from_official(state, epeg="output").config.epeg_k == 3


def test_confounders_come_from_the_file_or_the_caller() -> None:
    state = {k: v for k, v in CASES["aggregator_abmil"].state_dict().items() if "feature" not in k}
    encoder = CASES["encoder_bag_sizes"].state_dict()
    state = {k: v for k, v in state.items() if not k.startswith("classifier")}
    state |= {f"embedding.rrt.{key}": value for key, value in encoder.items()}
    state |= {
        "embedding.embed.0.weight": torch.randn(512, 64),
        "embedding.embed.0.bias": torch.randn(512),
        "W_q.weight": torch.randn(128, 512),
        "W_q.bias": torch.randn(128),
        "W_k.weight": torch.randn(128, 512),
        "W_k.bias": torch.randn(128),
        "head.weight": torch.randn(2, 1024),
        "head.bias": torch.randn(2),
    }
    with pytest.raises(CheckpointError, match="needs its confounders"):
        R2TMIL.from_official(state)
    prototypes = torch.randn(5, 512)
    given = R2TMIL.from_official(state, confounders=prototypes)
    found = R2TMIL.from_official(state | {"confounder_feat": prototypes})
    x = torch.randn(1, 20, 64)
    assert given.config.confounders == 5
    assert given(x).equal(found(x))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"variant": "resnet"}, ValueError, "no variant 'resnet'; there is rrtmil"),
        ({"heads": 4}, ValueError, "R2TMILConfig has no field heads"),
        ({"aggregator": "dsmil"}, CheckpointError, "this is a abmil checkpoint"),
        ({"encoder": {"widths": 1}}, ValueError, "R2TConfig has no field widths"),
    ],
)
def test_wrong_settings_are_named(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    state = CASES["rrtmil_c16_r50"].state_dict()
    with pytest.raises(error, match=re.escape(message)):
        R2TMIL.from_official(state, **settings)


def test_foreign_checkpoints_are_refused() -> None:
    state = CASES["rrtmil_c16_r50"].state_dict()
    with pytest.raises(CheckpointError, match="not a checkpoint of R²T-MIL"):
        R2TMIL.from_official({"conv1.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="no R²T in this checkpoint"):
        R2T.from_official({"conv1.weight": torch.zeros(3)})
    missing = {k: v for k, v in state.items() if "attention.2" not in k}
    with pytest.raises(CheckpointError, match=r"missing: aggregator.scores.score.weight"):
        R2TMIL.from_official(missing)
    with pytest.raises(CheckpointError, match=r"unexpected: extra.weight"):
        R2TMIL.from_official(state | {"extra.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"no aggregator.classifier.bias"):
        R2TMIL.from_official({k: v for k, v in state.items() if "predictor" not in k})
