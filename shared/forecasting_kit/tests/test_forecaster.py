import warnings
from dataclasses import dataclass

import forecasting_kit
import numpy as np
import pandas as pd
import pytest
import torch
from attention_core import PaperModel
from forecasting_kit import Scaler, Table, evaluate, from_frame, prepare
from torch import nn


def long(frame):
    melted = frame.melt(ignore_index=False, var_name="unique_id", value_name="y")
    return melted.rename_axis("ds").reset_index()[["unique_id", "ds", "y"]]


def test_forecast_has_future_times_and_the_units_of_the_data(trained, frame):
    forecast = trained.predict(frame)
    assert list(forecast.columns) == list(frame.columns)
    expected = pd.date_range(frame.index[-1] + pd.Timedelta(hours=1), periods=8, freq="h")
    assert forecast.index.equals(expected)
    truth = np.sin(2 * np.pi * np.arange(400, 408)[:, None] / 24 + np.arange(3))
    truth = truth * (np.arange(3) + 1) + 10 * np.arange(3)
    assert np.abs(forecast.to_numpy() - truth).max() < 2
    assert trained.evaluate(frame).errors.mse < 0.2


def test_forecast_of_the_network_is_rescaled_by_hand(trained, frame):
    scaler = Scaler.fit(frame.to_numpy()[:280])
    window = scaler.transform(frame.to_numpy()[-24:]).astype(np.float32)
    with torch.no_grad():
        expected = trained.model(torch.from_numpy(window)[None])[0].numpy()
    assert np.allclose(trained.predict(frame), scaler.inverse(expected), atol=1e-5)


def test_only_the_lookback_matters(trained, frame):
    assert np.allclose(trained.predict(frame), trained.predict(frame.iloc[-24:]), atol=1e-6)
    with pytest.raises(ValueError, match="23 rows are fewer than the lookback of 24"):
        trained.predict(frame.iloc[-23:])
    frame.iloc[100, 0] = np.nan
    assert np.isfinite(trained.predict(frame).to_numpy()).all()


def test_a_long_frame_comes_back_long(trained, frame):
    forecast = trained.predict(long(frame))
    assert list(forecast.columns) == ["unique_id", "ds", "y"]
    wide = forecast.pivot(index="ds", columns="unique_id", values="y")
    assert np.allclose(wide, trained.predict(frame))


def test_a_csv_file_will_do(trained, frame, tmp_path):
    frame.to_csv(tmp_path / "loads.csv", index_label="date")
    forecast = trained.predict(tmp_path / "loads.csv")
    assert np.allclose(forecast, trained.predict(frame))


def test_new_variates_are_scaled_by_their_history_with_a_warning(trained, frame):
    more = frame.assign(new=frame.load1 * 50 + 3)
    with pytest.warns(UserWarning, match="network was not trained on it: new"):
        forecast = trained.predict(more)
    assert list(forecast.columns) == ["load0", "load1", "load2", "new"]
    assert abs(forecast["new"].mean() - 503) < 100


def test_dropped_and_reordered_columns_keep_their_own_scale(trained, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast = trained.predict(frame[["load2", "load0"]])
    assert list(forecast.columns) == ["load2", "load0"]
    assert abs(forecast["load2"].mean() - 20) < 4
    assert abs(forecast["load0"].mean()) < 2


def test_gaps_are_refused_or_filled(trained, small, frame, waves):
    frame.iloc[-3, 1] = np.nan
    with pytest.raises(ValueError, match=f"'load1' is nan at {frame.index[-3]}"):
        trained.predict(frame)
    filler = small(24, 8, fill="interpolate").fit(frame, epochs=1, progress=False)
    whole = waves()
    whole.iloc[-3, 1] = (whole.iloc[-4, 1] + whole.iloc[-2, 1]) / 2
    assert np.allclose(filler.predict(frame), filler.predict(whole))
    with pytest.raises(ValueError, match="'load1' is nan"):
        small(24, 8).fit(frame, progress=False)


def test_another_step_is_refused(trained, waves):
    with pytest.raises(ValueError, match="the data's step is 15min, the network was trained on h"):
        trained.predict(waves(freq="15min"))


def test_uneven_times_are_refused_before_training(trained, small, frame):
    uneven = frame.drop(index=frame.index[50])
    for method in (lambda data: small(24, 8, marks="h").fit(data), trained.evaluate):
        with pytest.raises(ValueError, match=r"0 days 02:00:00 between .* \(row 50\)"):
            method(uneven)


def test_a_zone_of_time_is_kept(trained, frame):
    here = frame.tz_localize("Europe/Berlin")
    assert str(trained.predict(here).index.tz) == "Europe/Berlin"
    assert str(trained.backtest(here).frame.ds.dt.tz) == "Europe/Berlin"


def test_univariate_constant_integer_and_float32_data(small, waves):
    frame = waves(variates=1).assign(flat=3).astype({"load0": "float32"})
    forecast = small(24, 8).fit(frame, epochs=1, progress=False).predict(frame)
    assert np.isfinite(forecast.to_numpy()).all()
    assert forecast["flat"].between(0, 6).all()
    single = waves(variates=1)
    assert small(24, 8).fit(single, epochs=1, progress=False).predict(single).shape == (8, 1)


def test_half_precision_network(trained, frame, small, tmp_path):
    trained.save(tmp_path / "a.pt")
    half = small.load(tmp_path / "a.pt")
    half.model.bfloat16()
    assert np.allclose(half.predict(frame), trained.predict(frame), atol=0.3)


def test_evaluation_is_the_protocol_in_scaled_space(trained, frame):
    result = trained.evaluate(frame, "val")
    windows = prepare(from_frame(frame), 24, 8, marks="auto").val
    assert result.errors == evaluate(trained.model, windows)
    assert result.errors.windows == len(windows)
    assert result.columns == ("load0", "load1", "load2")
    assert list(result.baselines) == ["repeat-last", "seasonal-naive", "linear"]
    record = result.to_dict()
    assert record["split"] == "val"
    assert record["per_variate"]["load2"]["mse"] == result.errors.mse_per_variate[2]
    assert record["baselines"]["linear"]["mse"] < record["baselines"]["repeat-last"]["mse"]
    assert not trained.evaluate(frame, compare=False).baselines


def test_evaluation_does_not_depend_on_the_batch_size_of_training(small, frame):
    errors = set()
    for batch_size in (1, 7, 64):
        model = small(24, 8).fit(frame, epochs=1, lr=1e-12, batch_size=batch_size, progress=False)
        model.model = small(24, 8).fit(frame, epochs=1, progress=False).model
        errors.add(model.evaluate(frame).errors)
    assert len(errors) == 1


def test_backtest_repeats_past_forecasts(trained, frame):
    result = trained.backtest(frame, windows=3, step=5)
    assert len(result.frame) == 3 * 3 * 8
    assert list(result.frame.columns) == ["unique_id", "ds", "cutoff", "y", "forecast"]
    for back, (cutoff, part) in zip((10, 5, 0), result.frame.groupby("cutoff"), strict=True):
        known = frame.iloc[: len(frame) - 8 - back]
        assert cutoff == known.index[-1]
        wide = part.pivot(index="ds", columns="unique_id", values="forecast")
        assert np.allclose(wide, trained.predict(known), atol=1e-5)
        truth = part.pivot(index="ds", columns="unique_id", values="y")
        assert np.allclose(truth, frame.loc[truth.index])
    scaled = (result.frame.y - result.frame.forecast) / result.frame.unique_id.map(
        dict(zip(trained.columns, trained.scaler.scale, strict=True))
    )
    assert result.errors.mse == pytest.approx((scaled**2).mean(), rel=1e-6)
    assert len(trained.backtest(frame).frame) == 24
    with pytest.raises(ValueError, match="50 windows 8 apart need 424 rows of data, got 400"):
        trained.backtest(frame, windows=50)
    with pytest.raises(ValueError, match="windows=0, step=8: both must be at least 1"):
        trained.backtest(frame, windows=0)


@pytest.mark.parametrize("features", ["S", "MS"])
def test_one_target(small, frame, features, tmp_path):
    model = small(24, 8, features=features, target="load1")
    model.fit(frame, epochs=3, lr=1e-2, progress=False)
    model.save(tmp_path / "a.pt")
    model = small.load(tmp_path / "a.pt")
    assert model.evaluate(frame).columns == ("load1",)
    assert model.evaluate(frame).errors.mse < 0.4
    forecast = model.predict(frame)
    assert list(forecast.columns) == ["load1"]
    assert abs(forecast["load1"].mean() - 10) < 3
    assert set(model.backtest(frame, windows=2).frame.unique_id) == {"load1"}
    with pytest.raises(ValueError, match="no column load1"):
        model.predict(frame.drop(columns="load1"))


def test_data_without_times(small, waves):
    table = Table(waves().to_numpy(), ("a", "b", "c"))
    model = small(24, 8, split="solar").fit(table, epochs=1, progress=False)
    assert list(model.predict(table).index) == list(range(8))
    assert list(model.evaluate(table).baselines) == ["repeat-last", "linear"]
    assert list(model.backtest(table).frame.cutoff.unique()) == [391]


def test_the_latest_rows_can_all_train(small, frame):
    model = small(24, 8, split=(0.9, 0.1, 0)).fit(frame, epochs=2, progress=False)
    assert model.history[-1].val_mse is not None
    with pytest.raises(ValueError, match="leaves no rows for test"):
        model.evaluate(frame)
    whole = small(24, 8, split=(1, 0, 0)).fit(frame, epochs=2, progress=False)
    assert whole.history[-1].val_mse is None


def test_bundle_round_trip(trained, small, frame, tmp_path):
    path = trained.save(tmp_path / "loads.pt")
    again = small.load(path)
    assert again.predict(frame).equals(trained.predict(frame))
    assert again.evaluate(frame).errors == trained.evaluate(frame).errors
    assert (again.columns, again.step) == (trained.columns, "h")
    assert again.model.config == trained.model.config
    assert [p.name for p in tmp_path.iterdir()] == ["loads.pt"]


def test_a_failed_save_leaves_the_previous_bundle(trained, small, frame, tmp_path, monkeypatch):
    path = trained.save(tmp_path / "loads.pt")
    before = path.read_bytes()

    def full_disk(tensors, filename, metadata):
        filename.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("forecasting_kit.forecaster.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trained.save(path)
    monkeypatch.undo()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("attention_core.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        trained.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["loads.pt"]
    assert small.load(path).predict(frame).equals(trained.predict(frame))


def test_other_files_are_refused(trained, small, tmp_path):
    with pytest.raises(FileNotFoundError, match="no bundle at"):
        small.load(tmp_path / "none.pt")
    torch.save(trained.model.state_dict(), tmp_path / "state.pt")
    with pytest.raises(
        ValueError, match=r"not a bundle .* authors' checkpoints are read by import"
    ):
        small.load(tmp_path / "state.pt")
    trained.model.save_pretrained(tmp_path / "folder")
    with pytest.raises(ValueError, match="not a bundle"):
        small.load(tmp_path / "folder" / "model.safetensors")

    class Other(small):
        model_class = type("Gate", (small.model_class,), {})

    trained.save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds a Small, not a Gate"):
        Other.load(tmp_path / "a.pt")


def test_a_damaged_bundle_is_refused(trained, small, tmp_path):
    path = trained.save(tmp_path / "a.pt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a bundle"):
        small.load(path)


def test_adopting_a_trained_network(trained, small, frame):
    adopted = small.adopt(trained.model, data=frame, marks=None)
    assert np.allclose(adopted.predict(frame), trained.predict(frame))
    bare = small.adopt(trained.model)
    with pytest.warns(UserWarning, match="scaled by the data given here"):
        errors = bare.evaluate(frame).errors
    assert errors == trained.evaluate(frame).errors  # the same training rows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon=0: must be an integer of at least 1"),
        ({"features": "X"}, "features='X': must be"),
        ({"marks": "x"}, "no time marks for the step 'x'"),
        ({"split": "x"}, "split='x': must be one of"),
        ({"device": "cuda:99"}, "device='cuda:99': this machine has"),
        ({"device": "gpu"}, "device='gpu': Expected one of cpu, cuda"),
        ({"dim": 0}, "SmallConfig.dim=0: must be an integer of at least 1"),
        ({"depth": 3}, "SmallConfig has no field depth; it has lookback, horizon, dim"),
    ],
)
def test_bad_settings_are_told_at_once(small, settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_a_forecaster_without_a_network_says_so(small, frame):
    for method in (small().predict, small().evaluate, small().backtest):
        with pytest.raises(RuntimeError, match="no network yet: call fit"):
            method(frame)


@dataclass(frozen=True, kw_only=True)
class SizedConfig:
    lookback: int = 24
    horizon: int = 8
    variates: int = 3
    marks: int = 4


class Sized(PaperModel):
    """Made for one number of variates and marks; sees the marks of the future."""

    future_marks = True

    def __init__(self, config: SizedConfig) -> None:
        super().__init__(config)
        self.mix = nn.Linear(config.variates, config.variates)
        self.time = nn.Linear(config.marks, config.variates)

    def forward(self, x, marks):
        assert marks.shape[1] == self.config.lookback + self.config.horizon
        return self.mix(x[:, -1:]) + self.time(marks[:, -self.config.horizon :])


class SizedForecaster(forecasting_kit.Forecaster):
    model_class = Sized


def test_a_network_of_fixed_size_is_given_its_columns(frame, waves, tmp_path):
    model = SizedForecaster(24, 8, marks="min").fit(frame, epochs=1, progress=False)
    assert (model.model.config.variates, model.model.config.marks) == (3, 5)
    more = frame.assign(extra=1.0)[["extra", "load2", "load0", "load1"]]
    assert model.predict(more).equals(model.predict(frame))
    with pytest.raises(ValueError, match="no column load1"):
        model.predict(frame[["load0", "load2"]])
    model.save(tmp_path / "a.pt")
    again = SizedForecaster.load(tmp_path / "a.pt")
    assert again.predict(frame).equals(model.predict(frame))
    assert again.evaluate(frame).errors == model.evaluate(frame).errors


def test_adopting_checks_the_marks():
    assert SizedForecaster.adopt(Sized(SizedConfig())).marks == "h"
    with pytest.raises(ValueError, match="marks='D' are 3 per step, the network takes 4"):
        SizedForecaster.adopt(Sized(SizedConfig()), marks="D")
    with pytest.raises(ValueError, match="marks=None are 0 per step, the network takes 4"):
        SizedForecaster.adopt(Sized(SizedConfig()), marks=None)
