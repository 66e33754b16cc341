from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import torch
from rrt_mil.simulate import context_bags, symbol_pool
from torch import Tensor


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A folder like CLAM's: twelve slides as .pt, their coordinates as .h5, and label files."""
    return make_slides(tmp_path / "slides")


def make_slides(root: Path, count: int = 12, instances: int = 40) -> Path:
    (root / "pt_files").mkdir(parents=True)
    (root / "h5_files").mkdir()
    x, labels = context_bags(symbol_pool(16, each=20), count, instances)
    for index, bag in enumerate(x):
        torch.save(bag, root / "pt_files" / f"slide_{index}.pt")
        corners = torch.stack([torch.arange(instances) % 8, torch.arange(instances) // 8], 1) * 512
        write_h5(root / "h5_files" / f"slide_{index}.h5", features=bag, coords=corners)
    rows = [f"slide_{index},{label}" for index, label in enumerate(labels.tolist())]
    (root / "labels.csv").write_text("\n".join(rows))
    survival = ["Study,ID,Event,Status,WSI"]
    survival += [
        f"S,patient_{i},{3 * i + 1}.5,{int(i % 4 != 3)},/old/place/slide_{i}.pt" for i in range(11)
    ]
    survival.append("S,patient_11,7,1,/old/slide_11.pt;/old/slide_0.pt")
    (root / "survival.csv").write_text("\n".join(survival))
    return root


def write_h5(path: Path, **content: Tensor) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value.numpy()
    return path


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write
