import json
import sys
from pathlib import Path

import pytest
import torch
from attention_core import golden_cases
from forecasting_kit import waves
from forecasting_kit.tables import to_frame
from gateformer.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gateformer", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    table = waves(500, 3)
    path = tmp_path / "loads.csv"
    to_frame(table.values, table.names, table.times, table.layout).to_csv(path)
    return path


def test_train_evaluate_explain(
    loads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    bundle, shares, picture = (tmp_path / name for name in ("m.pt", "gates.json", "gates.png"))
    sizes = ["--lookback", 24, "--horizon", 6, "--d-model", 16, "--heads", 2, "--epochs", 1]
    assert not run(monkeypatch, "train", "--data", loads, "--out", bundle, "--patch-len", 6, *sizes)
    capsys.readouterr()
    assert not run(monkeypatch, "evaluate", bundle, "--data", loads, "--json")
    assert json.loads(capsys.readouterr().out)["mse"] > 0
    asked = ["explain", bundle, "--data", loads, "--out", shares, "--plot", picture]
    assert not run(monkeypatch, *asked)
    assert "wave_1" in capsys.readouterr().out
    found = json.loads(shares.read_text())
    assert set(found) == {"wave_0", "wave_1", "wave_2"}
    assert all(0 < share < 1 for column in found.values() for share in column.values())
    assert picture.stat().st_size
    assert run(monkeypatch, *asked, "--windows", 0) == 2
    assert "windows=0: must be at least 1" in capsys.readouterr().err


def test_import_refuses_sizes_that_the_file_contradicts(
    loads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    state = golden_cases("gateformer")[-1].state_dict()
    torch.save(state, tmp_path / "checkpoint.pth")
    given = ["import", tmp_path / "checkpoint.pth", "--heads", 4, "--out", tmp_path / "m.pt"]
    assert run(monkeypatch, *given, "--horizon", 48) == 2
    assert "--horizon 48: the checkpoint was trained for 96" in capsys.readouterr().err
    assert not (tmp_path / "m.pt").exists()
