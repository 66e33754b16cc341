import pytest
import torch
from sret import SReTConfig


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> SReTConfig:
    return SReTConfig(
        image_size=(64, 64),
        dims=(8, 16),
        heads=(2, 4),
        depths=(4, 2),
        shared_blocks=(2, 1),
        slices=(4, 2),
        recursive_slices=(2, 2),
        mlp_ratio=2.0,
        classes=7,
        drop_path=0.0,
    )
