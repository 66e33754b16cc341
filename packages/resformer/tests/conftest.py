import pytest
import torch
from resformer import ResFormerConfig


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> ResFormerConfig:
    return ResFormerConfig(patch_size=4, dim=24, depth=2, heads=3, mlp_ratio=2, classes=7)
