import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attention_core import golden_cases
from forecasting_kit import waves
from forecasting_kit.tables import to_frame


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from itransformer.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    table = waves(500, 3)
    path = tmp_path / "loads.csv"
    to_frame(table.values, table.names, table.times, table.layout).to_csv(path)
    return path


def test_train_and_evaluate(loads: Path, tmp_path: Path) -> None:
    sizes = ["--lookback", "24", "--horizon", "6", "--d-model", "16", "--layers", "1"]
    sizes += ["--heads", "2", "--epochs", "1"]
    bundle = str(tmp_path / "m.pt")
    done = run("train", "--data", str(loads), "--out", bundle, "--attention", "flow", *sizes)
    assert done.returncode == 0, done.stderr
    done = run("evaluate", bundle, "--data", str(loads), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mse"] > 0


def test_import_refuses_sizes_that_the_file_contradicts(loads: Path, tmp_path: Path) -> None:
    case = next(c for c in golden_cases("itransformer") if c.name == "etth1_96_96")
    torch.save(case.state_dict(), tmp_path / "checkpoint.pth")
    given = ["import", str(tmp_path / "checkpoint.pth"), "--out", str(tmp_path / "m.pt")]
    done = run(*given, "--lookback", "48")
    assert done.returncode == 2
    assert "--lookback 48: the checkpoint was trained for 96" in done.stderr
    assert not (tmp_path / "m.pt").exists()
