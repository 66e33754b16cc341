"""The files that the README's commands name."""

from pathlib import Path

import torch
from attention_core import golden_cases
from image_restoration_kit import write_picture
from image_restoration_kit.data import DrawnImages


def make(folder: Path) -> None:
    case = next(case for case in golden_cases("dlgsanet") if case.name == "x4_tiny_published")
    torch.save({"params_ema": case.state_dict()}, folder / "DLGSANet.pth")
    pictures = DrawnImages(count=3, side=64)
    for name in pictures.names:
        write_picture(folder / "photos" / f"{name}.png", pictures.read(name))
    write_picture(folder / "photo.png", pictures.read("drawn0"))
