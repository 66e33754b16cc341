"""The files that the README's commands name."""

from pathlib import Path

import torch
from attention_core import golden_cases


def make(folder: Path) -> None:
    cases = {case.name: case for case in golden_cases("sret")}
    torch.save({"model": cases["t_224"].state_dict()}, folder / "SReT_T.pth")
    torch.save({"model": cases["s_wo_slice_96"].state_dict()}, folder / "SReT_S_wo_slice.pth")
