"""What the README's commands name: features of twelve slides, labels, a checkpoint."""

from pathlib import Path

import h5py
import torch
from attention_core import golden_cases
from rrt_mil.simulate import context_bags, symbol_pool


def make(folder: Path) -> None:
    (folder / "features").mkdir()
    x, labels = context_bags(symbol_pool(), 12, 100)
    grid = torch.cartesian_prod(torch.arange(10), torch.arange(10)).flip(1) * 512
    for index, bag in enumerate(x):
        with h5py.File(folder / "features" / f"slide_{index}.h5", "w") as file:
            file["features"], file["coords"] = bag.numpy(), grid.numpy()
    rows = [f"slide_{index},{label}" for index, label in enumerate(labels.tolist())]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    case = next(case for case in golden_cases("rrt_mil") if case.name == "rrtmil_c16_r50")
    torch.save({"model": case.state_dict()}, folder / "fold_0_model_best_auc.pt")
