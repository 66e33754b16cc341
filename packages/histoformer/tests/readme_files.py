"""The files that the README's commands name."""

from pathlib import Path

import torch
from attention_core import golden_cases
from histoformer import Histoformer, HistoformerConfig
from histoformer.official import name
from histoformer.weather import rain
from image_restoration_kit import write_picture
from image_restoration_kit.data import DrawnImages


def make(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"dim": 12, "depths": (1, 1, 1, 1), "refinement": 1, "heads": (1, 2, 2, 4)}
    state = Histoformer(HistoformerConfig(**sizes)).state_dict()
    case = next(case for case in golden_cases("histoformer") if case.name == "allweather_64")
    layout = {key: name(key) for key in case.record["state_dict"]}
    official = {key: state[ours] for key, ours in layout.items() if ours in state}
    torch.save({"params": official}, folder / "net_g_best.pth")
    pictures = DrawnImages(count=2, side=64)
    for picture in pictures.names:
        clean = pictures.read(picture)
        write_picture(folder / "test" / "gt" / f"{picture}.png", clean)
        write_picture(folder / "test" / "input" / f"{picture}.png", rain(clean))
    write_picture(folder / "photo.png", rain(pictures.read("drawn0")))
