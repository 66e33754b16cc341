"""A network under timm's names."""

import dataclasses
import sys
from collections.abc import Iterator

import pytest
import timm
import torch
from image_classification_kit import timm as kit
from torch import Tensor, nn

from .conftest import Tiny, TinyConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TinyConfig):
    dropout: float = 0.0
    drop_path: float = 0.1
    image_size: tuple[int, int] = (16, 16)


class Named(kit.TimmClassifier, Tiny):
    levels_in = "stem"

    def sizes(self) -> list[tuple[int, int]]:
        return [(8, 4)] * 3

    def levels(self, images: Tensor) -> Iterator[Tensor]:
        for module in self.stem:
            images = module(images)
            yield images.permute(0, 2, 3, 1)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    sys.modules[__name__].default_cfgs = kit.default_cfgs(
        ["kit_tiny"], first_conv="stem.0", fixed_input_size=True, sizes={"kit_tiny": 16}
    )
    kit.register(__name__, Named, {"kit_tiny": Config()}, lambda state, model: state, (1, 2))


def test_created_by_name() -> None:
    assert timm.list_models("kit_*") == ["kit_tiny"]
    model = timm.create_model(
        "kit_tiny", num_classes=5, in_chans=1, img_size=24, drop_path_rate=0.3, drop_rate=0.2
    )
    assert model.config == Config(
        classes=5, channels=1, dropout=0.2, drop_path=0.3, image_size=(24, 24)
    )
    assert model.pretrained_cfg["input_size"] == (3, 16, 16)
    assert (model.num_features, model.head_hidden_size, model.num_classes) == (8, 8, 5)
    with pytest.raises(TypeError, match="no_such_argument"):
        timm.create_model("kit_tiny", no_such_argument=1)


def test_levels_become_maps() -> None:
    model, images = Named(Config()).eval(), torch.randn(2, 3, 16, 16)
    final, maps = model.forward_intermediates(images, indices=[0, 2])
    assert maps[0].equal(model.stem[0](images))
    assert maps[1].equal(model.forward_features(images))
    assert final.equal(maps[1].permute(0, 2, 3, 1))
    early = model.forward_intermediates(images, [1], stop_early=True, output_fmt="NHWC")
    assert early[0].equal(early[1][0])
    with pytest.raises(ValueError, match="output_fmt='NLC': must be 'NCHW' or 'NHWC'"):
        model.forward_intermediates(images, output_fmt="NLC")
    encoder = timm.create_model("kit_tiny", features_only=True)
    assert encoder.feature_info.reduction() == [4, 4]
    assert [tuple(x.shape) for x in encoder(images)] == [(2, 8, 3, 3)] * 2


def test_heads_and_pools() -> None:
    model = Named(Config())
    model.reset_classifier(3, "avg")
    assert model.get_classifier().out_features == 3
    assert model.prune_intermediate_layers([0]) == [0]
    assert len(model.stem) == 1
    assert isinstance(model.classifier, nn.Identity)
    with pytest.raises(ValueError, match=r"global_pool='max': must be one of \('avg', ''\)"):
        Named(Config(), global_pool="max")
