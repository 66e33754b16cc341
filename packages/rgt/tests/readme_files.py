"""The files that the README's commands name."""

from pathlib import Path

import torch
from attention_core import golden_cases
from image_restoration_kit import write_picture
from image_restoration_kit.data import DrawnImages


def make(folder: Path) -> None:
    case = next(case for case in golden_cases("rgt") if case.name == "x2_tiny")
    # What the authors' files hold beside the weights: the offsets that tell the window.
    offsets = {
        "layers.0.blocks.0.attn.attns.0.rpe_biases": torch.tensor([[-3.0, -7.0], [3.0, 7.0]])
    }
    torch.save({"params": case.state_dict() | offsets}, folder / "RGT.pth")
    pictures = DrawnImages(count=3, side=48)
    for name in pictures.names:
        write_picture(folder / "photos" / f"{name}.png", pictures.read(name))
    write_picture(folder / "photo.png", pictures.read("drawn0"))
