import sys
from pathlib import Path

import pytest
import torch
from image_restoration_kit import enlarge, quantise, read_picture, write_picture
from rgt import RGT, load
from rgt.cli import main
from rgt.paper import PAPER
from rgt.train import Training


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    RGT(PAPER.tiny[0]).save_pretrained(tmp_path / "net")
    write_picture(tmp_path / "photo.png", torch.rand(3, 13, 22))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rgt", *line.split()])
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
    assert "error: not a RGT checkpoint" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate --hr . -m missing.pth") == 2
    assert "no checkpoint file at missing.pth" in capsys.readouterr().err


def test_training_starts_from_weights_of_another_scale(folder: Path) -> None:
    from dataclasses import replace

    wider = replace(PAPER.tiny[0], scale=4)
    module = Training(wider, start="net")
    assert (
        module.model.groups[1]
        .blocks[1]
        .mlp.fc1.weight.equal(load("net").groups[1].blocks[1].mlp.fc1.weight)
    )
    assert len(module.model.upsample) == 4
    with pytest.raises(ValueError, match="the body of the weights to start from"):
        Training(replace(wider, dim=64), start="net")
