import pytest
import torch
from tnt import TNTConfig


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> TNTConfig:
    return TNTConfig(
        image_size=(16, 24),
        patch_size=8,
        outer_dim=12,
        outer_heads=3,
        inner_dim=6,
        inner_heads=2,
        depth=2,
        mlp_ratio=2,
        classes=7,
    )
