import json
import sys

import numpy as np
import pytest
import torch
from attention_core import golden_cases
from resformer.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["resformer", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    torch.save(golden_cases("resformer")[0].state_dict(), tmp_path / "checkpoint.pth")
    monkeypatch.chdir(tmp_path)
    return call


def test_import_and_predict(run):
    assert run("import", "checkpoint.pth", "--output", "weights")[0] == 0
    np.save("tokens.npy", np.ones((3, 5, 8)))
    code, out, _ = run("predict", "tokens.npy", "--weights", "weights", "--json")
    assert code == 0
    assert len(set(json.loads(out))) == 1


def test_bad_input_is_one_line(run):
    code, _, error = run("import", "nowhere.pth", "--output", "weights")
    assert (code, error) == (2, "error: no checkpoint file at nowhere.pth\n")
    run("import", "checkpoint.pth", "--output", "weights")
    np.save("tokens.npy", np.ones((3, 5)))
    code, _, error = run("predict", "tokens.npy", "--weights", "weights")
    expected = "error: tokens.npy has the shape [3, 5]; the model takes [samples, tokens, 8]\n"
    assert (code, error) == (2, expected)
