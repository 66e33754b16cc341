import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hat import HAT
from hat.cli import main
from hat.paper import PAPER
from image_restoration_kit import read_picture, write_picture


def test_a_network_that_restores_keeps_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    HAT(replace(PAPER.tiny[0], scale=1)).save_pretrained(tmp_path / "denoiser")
    write_picture(tmp_path / "photo.png", torch.rand(3, 13, 22))
    line = "hat upscale photo.png -m denoiser -o clean.png --device cpu"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert read_picture("clean.png").color.shape == (3, 13, 22)
