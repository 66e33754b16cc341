import json
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from attention_core import read_checkpoint
from forecasting_kit.commands import forecasting_app
from typer.testing import CliRunner


@pytest.fixture
def command(small):
    network = small.model_class

    def options(
        dim: Annotated[int, typer.Option(help="Width of the network.")] = 16,
    ) -> dict[str, int]:
        return {"dim": dim}

    def official(checkpoint, *, wide: Annotated[bool, typer.Option(help="Wide.")] = False):
        config = small(24, 8, dim=32 if wide else 16).configure(variates=1, marks=0)
        return network.from_state(config, read_checkpoint(checkpoint))

    app = forecasting_app("small", small, network=options, official=official)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def loads(frame, tmp_path):
    path = tmp_path / "loads.csv"
    frame.to_csv(path, index_label="date")
    return path


@pytest.fixture
def bundle(trained, tmp_path):
    return trained.save(tmp_path / "model.pt")


def test_train_evaluate_predict(command, small, loads, tmp_path):
    bundle, forecast = tmp_path / "model.pt", tmp_path / "forecast.csv"
    sizes = ("--lookback", 24, "--horizon", 8, "--dim", 12, "--epochs", 2, "--lr", 0.01)
    shown = command("train", "--data", loads, *sizes, "--out", bundle).output
    assert "validation MSE" in shown
    assert small.load(bundle).model.config.dim == 12
    record = json.loads(
        command("evaluate", bundle, "--data", loads, "--split", "test", "--json").stdout
    )
    assert record["mse"] == small.load(bundle).evaluate(loads).errors.mse
    assert set(record["per_variate"]) == {"load0", "load1", "load2"}
    assert len(record["per_step"]) == 8
    table = command("evaluate", bundle, "--data", loads).output
    assert all(name in table for name in ("model", "linear", "seasonal-naive", "repeat-last"))
    command("predict", bundle, "--data", loads, "--out", forecast)
    frame = pd.read_csv(forecast, index_col="date", parse_dates=True)
    assert frame.index[0] == pd.Timestamp("2020-01-17 16:00")
    assert np.allclose(frame, small.load(bundle).predict(loads))


def test_pictures(command, bundle, loads, tmp_path):
    errors, forecast = tmp_path / "errors.png", tmp_path / "forecast.png"
    command("evaluate", bundle, "--data", loads, "--plot", errors)
    command("predict", bundle, "--data", loads, "--out", tmp_path / "f.csv", "--plot", forecast)
    assert errors.read_bytes()[:4] == forecast.read_bytes()[:4] == b"\x89PNG"


def test_long_files_give_long_forecasts(command, bundle, frame, tmp_path):
    path = tmp_path / "long.csv"
    melted = frame.rename_axis("ds").melt(ignore_index=False, var_name="unique_id", value_name="y")
    melted.reset_index().to_csv(path, index=False)
    command("predict", bundle, "--data", path, "--out", tmp_path / "f.csv")
    assert list(pd.read_csv(tmp_path / "f.csv").columns) == ["unique_id", "ds", "y"]


def test_import_a_checkpoint_of_the_authors(command, trained, small, loads, frame, tmp_path):
    torch.save(trained.model.state_dict(), tmp_path / "checkpoint.pth")
    bundle = tmp_path / "model.pt"
    sizes = ("--lookback", 24, "--horizon", 8)
    command("import", tmp_path / "checkpoint.pth", *sizes, "--data", loads, "--out", bundle)
    assert np.allclose(small.load(bundle).predict(frame), trained.predict(frame))
    result = command("import", tmp_path / "checkpoint.pth", "--out", bundle)
    assert "no --data" in result.stderr
    result = command("predict", bundle, "--data", loads, "--out", tmp_path / "f.csv")
    assert "warning: scaled by the data given here" in result.stderr
    wrong = command(
        "import", tmp_path / "checkpoint.pth", "--lookback", 96, "--out", bundle, code=2
    )
    assert "--lookback 96: the checkpoint was trained for 24" in wrong.stderr
    wrong = command("import", tmp_path / "checkpoint.pth", "--wide", "--out", bundle, code=2)
    assert "does not fit" in wrong.stderr


def test_import_a_folder_of_a_training_run(command, trained, small, loads, frame, tmp_path):
    trained.model.save_pretrained(tmp_path / "model")
    bundle = tmp_path / "model.pt"
    command("import", tmp_path / "model", "--data", loads, "--out", bundle)
    assert np.allclose(small.load(bundle).predict(frame), trained.predict(frame))


def test_without_a_converter_import_takes_folders_only(small, trained, tmp_path):
    app = forecasting_app("small", small, network=lambda: {})
    torch.save(trained.model.state_dict(), tmp_path / "a.pth")
    arguments = ["import", str(tmp_path / "a.pth"), "--out", str(tmp_path / "b.pt")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "reads folders written by training runs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "none.csv"), "none.csv: no such file, and no data set of that name"),
        (("--horizon", 0), "horizon=0: must be an integer of at least 1"),
        (("--horizon", 390), "400 rows of data are fewer than lookback + horizon = 414"),
        (("--dim", 0), "SmallConfig.dim=0"),
        (("--split", "0.8,x"), "--split 0.8,x: must be three shares such as 0.8,0.2,0"),
        (("--features", "S", "--target", "x"), "no column x; the data has load0"),
        (("--epochs", 0), "epochs=0: must be at least 1"),
        (("--kind", "ett-hour"), "split 'ett-hour' needs 14400 rows (20 months), got 400"),
    ],
)
def test_bad_input_is_one_line_and_code_two(command, loads, tmp_path, arguments, message):
    base = ("--data", loads, "--lookback", 24, "--horizon", 8, "--out", tmp_path / "a.pt")
    result = command("train", *base, *arguments, code=2)
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "a.pt").exists()


def test_missing_files_are_named(command, bundle, loads, tmp_path):
    result = command("evaluate", tmp_path / "none.pt", "--data", loads, code=2)
    assert "no bundle at" in result.stderr
    result = command("import", tmp_path / "none.pth", "--out", bundle, code=2)
    assert "no checkpoint at" in result.stderr
    result = command("evaluate", bundle, "--data", loads, "--split", "dev", code=2)
    assert "split 'dev': must be one of train, val, test" in result.stderr


def test_gaps_can_be_filled_at_prediction(command, bundle, frame, tmp_path):
    frame.iloc[-2, 0] = np.nan
    frame.to_csv(tmp_path / "gap.csv", index_label="date")
    arguments = ("predict", bundle, "--data", tmp_path / "gap.csv", "--out", tmp_path / "f.csv")
    assert "'load0' is nan at 2020-01-17 14:00" in command(*arguments, code=2).stderr
    command(*arguments, "--fill", "ffill")
    assert (tmp_path / "f.csv").exists()


def test_options_of_the_network_are_in_the_help(command):
    assert "Width of the network." in command("train", "--help").output
    assert "--wide" in command("import", "--help").output
