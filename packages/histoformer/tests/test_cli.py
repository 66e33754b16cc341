import sys
from pathlib import Path

import pytest
import torch
from histoformer import Histoformer
from histoformer.cli import main
from histoformer.paper import PAPER
from image_restoration_kit import enlarge, quantise, read_picture, write_picture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    Histoformer(PAPER.tiny[0]).save_pretrained(tmp_path / "net")
    for place in ("in/a.png", "in/b.png", "gt/a.png", "gt/b.png"):
        write_picture(tmp_path / place, torch.rand(3, 13, 22))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["histoformer", *line.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_restore(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "restore in -m net -o out --device cpu") == 0
    expected = quantise(enlarge(Histoformer.load("net"), read_picture("in/a.png").color[None])[0])
    assert quantise(read_picture("out/a.png").color).equal(expected)


def test_tiles_tell_their_difference(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "restore in/a.png -m net -o out.png --device cpu --tile 16 --halo 0"
    assert run(monkeypatch, line) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "at a seam they differ from the whole image by" in said


def test_evaluate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "evaluate --hr gt --lr in -m net --device cpu") == 0
    assert "input PSNR" in capsys.readouterr().out


def test_another_network_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"params": {"layers.0.weight": torch.zeros(3)}}, "other.pth")
    assert run(monkeypatch, "restore in -m other.pth -o out") == 2
    assert "error: not a Histoformer checkpoint" in capsys.readouterr().err
