from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from attention_core import PaperModel
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    classes: int = 4
    channels: int = 3


class Tiny(PaperModel):
    """Mean colour, one hidden layer: learns the drawn shapes a little, in no time."""

    variants: ClassVar = {"tiny": TinyConfig()}

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.stem = nn.Sequential(nn.Conv2d(config.channels, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, config.classes)

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 8 y x"]:
        return self.stem(images)

    def forward_head(self, x: Float[Tensor, "b 8 y x"], pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3)) if pre_logits else self.classifier(x.mean((2, 3)))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.forward_head(self.forward_features(images))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model() -> Tiny:
    return Tiny(TinyConfig()).eval()


@pytest.fixture
def folder(tmp_path):
    """Two classes of three pictures, as train and val."""
    from PIL import Image

    for split in ("train", "val"):
        for name, colour in (("blue", "navy"), ("red", "crimson")):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (20 + i, 30), colour).save(place / f"{i}.png")
    return tmp_path / "data"
