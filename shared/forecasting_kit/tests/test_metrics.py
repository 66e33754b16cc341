import json

import numpy as np
import pytest
import torch
from forecasting_kit import (
    ErrorMeter,
    LinearForecaster,
    RepeatLast,
    SeasonalNaive,
    Windows,
    baselines,
    error_sums,
    evaluate,
    forecast_errors,
    from_frame,
    prepare,
    season_steps,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


def pair(windows=20, steps=6, variates=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(windows, steps, variates, generator=generator) + 2 for _ in range(2)]


def test_errors_by_their_definitions():
    forecast, true = (x.double().numpy() for x in pair())
    errors, difference = forecast_errors(*pair()), forecast - true
    assert np.isclose(errors.mse, (difference**2).mean())
    assert np.isclose(errors.mae, np.abs(difference).mean())
    assert np.isclose(errors.rmse, np.sqrt((difference**2).mean()))
    assert np.isclose(errors.mape, np.abs(difference / true).mean())
    assert np.isclose(errors.mspe, ((difference / true) ** 2).mean())
    rse = np.sqrt((difference**2).sum()) / np.sqrt(((true - true.mean()) ** 2).sum())
    assert np.isclose(errors.rse, rse)
    assert np.allclose(errors.mse_per_variate, (difference**2).mean((0, 1)))
    assert np.allclose(errors.mae_per_step, np.abs(difference).mean((0, 2)))
    assert np.isclose(errors.median_mse, np.median(errors.mse_per_variate))
    assert np.isclose(errors.median_mae, np.median(errors.mae_per_variate))


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_streaming_in_any_batches_is_the_whole(sizes):
    forecast, true = pair(sum(sizes))
    meter = ErrorMeter()
    for part, other in zip(forecast.split(sizes), true.split(sizes), strict=True):
        meter.update(part, other)
    whole, streamed = forecast_errors(forecast, true), meter.errors()
    assert streamed.windows == sum(sizes)
    assert streamed.mse == pytest.approx(whole.mse, rel=1e-12)
    assert streamed.rse == pytest.approx(whole.rse, rel=1e-12)
    assert streamed.mae_per_variate == pytest.approx(whole.mae_per_variate, rel=1e-12)


def test_half_precision_is_summed_in_float64():
    forecast, true = (x.half() for x in pair(400))
    assert forecast_errors(forecast, true).mse == pytest.approx(
        (forecast.double() - true.double()).square().mean().item(), rel=1e-12
    )


def test_json_holds_names_and_no_infinity():
    forecast, true = pair()
    true[0, 0, 0] = 0
    record = forecast_errors(forecast, true).to_dict(["a", "b", "c", "d"])
    assert list(record["per_variate"]) == ["a", "b", "c", "d"]
    assert record["per_step"][5]["step"] == 6
    assert record["mape"] is None
    json.dumps(record, allow_nan=False)


def test_wrong_shapes_and_no_windows_are_refused():
    with pytest.raises(ValueError, match=r"forecast \[2, 3, 4\] and truth \[2, 3, 1\]"):
        error_sums(torch.zeros(2, 3, 4), torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match="no windows"):
        ErrorMeter().errors()
    with pytest.raises(ValueError, match="no windows"):
        forecast_errors(torch.zeros(0, 2, 2), torch.zeros(0, 2, 2))


class Drifting(nn.Module):
    """Its forecast of a window depends on how many windows it is given, as rounding does."""

    def __init__(self, horizon):
        super().__init__()
        self.horizon, self.sizes = horizon, []

    def forward(self, x, marks=None):
        self.sizes.append(len(x))
        return x[:, -1:].expand(-1, self.horizon, -1) + 1e-3 * len(x)


def test_evaluation_takes_every_window_in_fixed_blocks():
    windows = Windows(torch.randn(100 + 5, 3), 4, 2)
    model = Drifting(2)
    first = evaluate(model, windows)
    assert model.sizes == [32, 32, 32, 4]
    assert first.windows == len(windows) == 100
    assert evaluate(model, windows) == first


def test_evaluation_leaves_the_mode_of_the_model():
    model = nn.Sequential(RepeatLast(2), nn.Dropout(0.5))
    model.forward = lambda x, marks: model[1](model[0](x))
    windows = Windows(torch.randn(60, 3), 4, 2)
    assert evaluate(model.train(), windows) == evaluate(RepeatLast(2), windows)
    assert model.training


def test_repeat_last_and_seasonal_naive():
    x = torch.arange(10.0)[None, :, None].expand(2, 10, 3)
    assert torch.equal(RepeatLast(4)(x), torch.full((2, 4, 3), 9.0))
    expected = torch.tensor([7.0, 8, 9, 7, 8, 9, 7])
    assert torch.equal(SeasonalNaive(7, 3)(x)[1, :, 2], expected)
    with pytest.raises(ValueError, match="season of 11 steps needs a lookback"):
        SeasonalNaive(7, 11)(x)


def test_seasons_of_steps():
    seasons = {"h": 24, "15min": 96, "10min": 144, "D": 7, "B": 5, "W-SUN": 52, "MS": 12,
               "QE-DEC": 4, "YS-JAN": 1, "7h": 1, "2D": 1, None: 1}  # fmt: skip
    assert {step: season_steps(step) for step in seasons} == seasons


def test_linear_baseline_is_the_least_squares_solution(waves):
    windows = prepare(from_frame(waves(rows=300, variates=2)), 12, 4).train
    model = LinearForecaster.fit(windows, ridge=0)
    batch = windows[list(range(len(windows)))]

    def loss(weight, bias):
        mean = batch.x.mean(1, keepdim=True)
        deviation = (batch.x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        normal = ((batch.x - mean) / deviation).mT.double()
        forecast = (normal @ weight.T + bias).mT * deviation + mean
        return (forecast - batch.y).square().mean()

    weight = model.linear.weight.detach().double().requires_grad_()
    bias = model.linear.bias.detach().double().requires_grad_()
    best = loss(weight, bias)
    best.backward()
    assert best.item() == pytest.approx(evaluate(model, windows).mse, rel=1e-4)
    assert weight.grad.abs().max() < 1e-3 * best.item() ** 0.5
    assert bias.grad.abs().max() < 1e-3 * best.item() ** 0.5


def test_baselines_that_fit_the_lookback(waves):
    windows = prepare(from_frame(waves()), 12, 4).train
    assert list(baselines(windows, "h")) == ["repeat-last", "linear"]
    windows = prepare(from_frame(waves()), 24, 4).train
    models = baselines(windows, "h")
    assert list(models) == ["repeat-last", "seasonal-naive", "linear"]
    errors = {name: evaluate(model, windows).mse for name, model in models.items()}
    assert errors["linear"] < errors["seasonal-naive"] < errors["repeat-last"]
