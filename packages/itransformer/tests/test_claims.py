from pathlib import Path

import pytest
import torch
from attention_core import Run
from itransformer import claims
from itransformer.paper import PAPER


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured
    assert all(figure.stat().st_size for figure in found.figures)


def test_attention_finds_what_no_series_shows_alone(tmp_path: Path) -> None:
    errors = claims.coupled_errors(Run(output=tmp_path), 0, rows=1000, epochs=4)
    assert errors["together"] < 0.75 * errors["alone"]


def test_a_few_steps_on_real_data_beat_the_daily_naive() -> None:
    from forecasting_kit import SeasonalNaive, Windows, evaluate, fit
    from forecasting_kit.studies import simbench
    from itransformer import ITransformer, ITransformerConfig

    splits = simbench(96, 24, "cpu", 40)
    torch.manual_seed(0)
    model = ITransformer(ITransformerConfig(horizon=24, dim=64, feed_forward=64, layers=2, heads=4))
    train = Windows(splits.train.values[:1700], 96, 24, marks=splits.train.marks[:1700])
    history = fit(model, train, epochs=2, lr=1e-3, batch_size=32)
    assert history[1].train_mse < history[0].train_mse
    naive = evaluate(SeasonalNaive(24, 24), splits.test)
    assert evaluate(model, splits.test).mse < naive.mse


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and not c.fast])
def test_slow_claims_are_measured(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.measured
    assert found.holds == (claim != "attention-simbench"), found.measured
