import ast
from pathlib import Path

import forecasting_kit
import pytest
import torch
from forecasting_kit.plots import plot_attention, plot_errors, plot_forecast, save_figure


def test_forecast_continues_the_history(trained, frame, tmp_path):
    forecast = trained.predict(frame.iloc[:-8])
    figure = plot_forecast(frame.iloc[-60:-8], forecast, truth=frame.iloc[-8:], columns=["load1"])
    history, truth, drawn = figure.axes[0].lines
    assert list(history.get_ydata()) == list(frame.load1.iloc[-60:-8])
    assert list(truth.get_ydata()) == list(frame.load1.iloc[-8:])
    assert list(drawn.get_ydata()) == list(forecast.load1)
    assert len(plot_forecast(frame, forecast).axes) == 3
    assert save_figure(figure, tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no forecast of column x"):
        plot_forecast(frame, forecast, columns=["x"])


def test_errors_by_step_and_by_variate(trained, frame):
    result = trained.evaluate(frame)
    by_step, by_variate = plot_errors(result.errors, result.columns).axes
    assert list(by_step.lines[0].get_ydata()) == list(result.errors.mse_per_step)
    heights = [bar.get_height() for bar in by_variate.patches]
    assert heights == sorted(result.errors.mse_per_variate)
    order = sorted(range(3), key=result.errors.mse_per_variate.__getitem__)
    names = [label.get_text() for label in by_variate.get_xticklabels()]
    assert names == [result.columns[i] for i in order]


def test_attention_between_variates():
    weights = torch.rand(4, 4).bfloat16()
    axes = plot_attention(weights, list("abcd")).axes[0]
    assert torch.equal(torch.tensor(axes.images[0].get_array().data), weights.float())
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcd")
    with pytest.raises(ValueError, match=r"weights \[4, 3\]: must be variates x variates"):
        plot_attention(weights[:, :3])
    with pytest.raises(ValueError, match="3 names for 4 variates"):
        plot_attention(weights, list("abc"))


def test_importing_the_kit_loads_no_engine_and_no_plotting():
    heavy = {"lightning", "torchmetrics", "matplotlib", "tensorboard"}
    home = Path(forecasting_kit.__file__).parent
    for file in set(home.glob("*.py")) - {home / "training.py"}:
        loaded = set()
        for line in ast.parse(file.read_text()).body:
            if isinstance(line, ast.Import):
                loaded |= {alias.name.split(".")[0] for alias in line.names}
            elif isinstance(line, ast.ImportFrom):
                loaded.add(line.module.split(".")[0])
                assert line.module != "forecasting_kit.training"
        assert not loaded & heavy, file.name
