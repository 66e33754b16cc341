from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attention_core import Run
from gateformer import Gateformer, claims
from gateformer.paper import PAPER


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured


def test_a_few_steps_on_real_data_beat_the_daily_naive() -> None:
    from forecasting_kit import SeasonalNaive, Windows, evaluate, fit
    from forecasting_kit.studies import simbench

    splits = simbench(96, 24, "cpu", 10, None)
    torch.manual_seed(0)
    model = Gateformer(replace(claims.SMALL, horizon=24))
    train = Windows(splits.train.values[:1200], 96, 24)
    history = fit(model, train, epochs=2, lr=1e-3)
    assert history[1].train_mse < history[0].train_mse
    test = Windows(splits.test.values[:600], 96, 24)
    assert evaluate(model, test).mse < evaluate(SeasonalNaive(24, 24), test).mse


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and not c.fast])
def test_slow_claims_are_measured(claim: str, tmp_path: Path) -> None:
    assert PAPER.claim(claim).measure(Run(output=tmp_path)).measured
