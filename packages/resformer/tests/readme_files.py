"""The files that the README's commands name."""

from pathlib import Path

import torch
from attention_core import golden_cases


def make(folder: Path) -> None:
    case = next(case for case in golden_cases("resformer") if case.name == "s_96")
    torch.save({"model": case.state_dict()}, folder / "resformer-s-mr.pth")
