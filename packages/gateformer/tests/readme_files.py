"""The files that the README's commands name."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from attention_core import golden_cases


def make(folder: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=1300, freq="h", name="date")
    rng = np.random.default_rng(0)
    waves = 50 + 20 * np.sin(2 * np.pi * (np.arange(1300)[:, None] / 24 + rng.random(6)))
    columns = [f"load_{i}" for i in range(6)]
    frame = pd.DataFrame(waves + rng.standard_normal(waves.shape), index=hours, columns=columns)
    frame.to_csv(folder / "loads.csv")
    case = next(case for case in golden_cases("gateformer") if case.name == "etth1_96_96")
    torch.save(case.state_dict(), folder / "checkpoint.pth")
