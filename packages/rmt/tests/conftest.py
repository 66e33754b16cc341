import pytest
import torch
from rmt import RMTBackboneConfig, RMTConfig

SIZES = {
    "dims": (8, 12, 16, 24),
    "depths": (1, 2, 1, 1),
    "heads": (2, 3, 2, 4),
    "mlp_ratios": (2, 2, 2, 2),
    "decomposed": (True, True, False, False),
    "drop_path": 0.0,
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> RMTConfig:
    return RMTConfig(**SIZES, projection=20, classes=7)


@pytest.fixture
def tiny_backbone() -> RMTBackboneConfig:
    return RMTBackboneConfig(**SIZES)
