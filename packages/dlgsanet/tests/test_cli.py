import sys
from pathlib import Path

import pytest
import torch
from dlgsanet import DLGSANet, load
from dlgsanet.cli import main
from dlgsanet.paper import PAPER
from dlgsanet.train import Training
from image_restoration_kit import enlarge, quantise, read_picture, write_picture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    DLGSANet(PAPER.tiny[0]).save_pretrained(tmp_path / "net")
    write_picture(tmp_path / "photo.png", torch.rand(3, 13, 22))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dlgsanet", *line.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_upscale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "upscale photo.png -m net -o big.png --device cpu") == 0
    expected = quantise(enlarge(load("net"), read_picture("photo.png").color[None])[0])
    assert quantise(read_picture("big.png").color).equal(expected)


def test_a_checkpoint_of_something_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"params": {"conv.weight": torch.zeros(3)}}, "other.pth")
    assert run(monkeypatch, "upscale photo.png -m other.pth -o big.png") == 2
    assert "error: not a DLGSANet checkpoint" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate --hr . -m missing.pth") == 2
    assert "no checkpoint file at missing.pth" in capsys.readouterr().err


def test_training_starts_from_weights_of_another_scale(folder: Path) -> None:
    from dataclasses import replace

    module = Training(replace(PAPER.tiny[0], scale=4), start="net")
    assert module.model.groups[1].conv.weight.equal(load("net").groups[1].conv.weight)
    assert len(module.model.conv_last.weight) == 4**2 * 3
    with pytest.raises(ValueError, match="the body of the weights to start from"):
        Training(replace(PAPER.tiny[0], dim=24), start="net")
