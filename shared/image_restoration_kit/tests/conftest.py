from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_core import GoldenCase
from torch import Tensor, nn

GOLDENS = Path(__file__).parent / "goldens"


class Toy(nn.Module):
    """A super-resolution network of one convolution that sees ``reach`` pixels."""

    def __init__(self, scale: int = 2, channels: int = 3, multiple: int = 4) -> None:
        super().__init__()
        self.scale, self.channels, self.multiple, self.reach = scale, channels, multiple, 2
        with torch.random.fork_rng():  # always the same, and no one else's draws change
            torch.manual_seed(0)
            self.conv_last = nn.Conv2d(channels, channels * scale**2, 5, padding=2)
        self.mean = 0.0

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        assert height % self.multiple == width % self.multiple == 0
        return F.pixel_shuffle(self.conv_last(image), self.scale)


@pytest.fixture
def toy() -> Toy:
    return Toy().eval()


@pytest.fixture
def toys() -> Any:
    return Toy


@pytest.fixture
def golden() -> Any:
    return lambda name: GoldenCase(GOLDENS / f"{name}.json")
