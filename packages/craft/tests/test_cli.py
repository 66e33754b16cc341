import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from craft import CRAFT, load
from craft.cli import main
from craft.paper import PAPER
from craft.train import Training
from image_restoration_kit import enlarge, quantise, read_picture, write_picture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    CRAFT(PAPER.tiny[0]).save_pretrained(tmp_path / "net")
    write_picture(tmp_path / "photo.png", torch.rand(3, 13, 22))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["craft", *line.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_upscale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "upscale photo.png -m net -o big.png --device cpu") == 0
    expected = quantise(enlarge(load("net"), read_picture("photo.png").color[None])[0])
    assert quantise(read_picture("big.png").color).equal(expected)


def test_a_checkpoint_of_another_family(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"layers.0.residual_group.overlap_attn.qkv.weight": torch.zeros(3)}
    torch.save({"params": other}, "other.pth")
    assert run(monkeypatch, "upscale photo.png -m other.pth -o big.png") == 2
    error = capsys.readouterr().err
    assert "error: not a CRAFT checkpoint but one of HAT: the package hat loads it" in error


def test_training_starts_from_weights_of_another_scale(folder: Path) -> None:
    wider = replace(PAPER.tiny[0], scale=4)
    module = Training(wider, start="net")
    weight = "groups.1.blocks.0.fusion.gate.fc1.weight"
    assert module.model.get_parameter(weight).equal(load("net").get_parameter(weight))
    with pytest.raises(ValueError, match="the body of the weights to start from"):
        Training(replace(wider, fusion_ratio=2.0), start="net")
