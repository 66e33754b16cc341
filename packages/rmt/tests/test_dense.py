"""The backbone under the names of mmdetection's configs."""

from typing import Any

import pytest
import torch
from attention_core import CheckpointError
from rmt import RMT, RMTBackbone
from rmt.dense import DenseRMT, register
from rmt.official import to_official_names

ARGUMENTS: dict[str, Any] = {
    "embed_dims": [8, 12, 16, 24],
    "depths": [1, 2, 1, 1],
    "num_heads": [2, 3, 2, 4],
    "mlp_ratios": [2, 2, 2, 2],
    "chunkwise_recurrents": [True, True, False, False],
    "drop_path_rate": 0.0,
}


class Registry:
    """What mmengine's and mmcv's registries share."""

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}

    def register_module(self, name: str, module: Any, force: bool) -> None:
        self.modules[name] = module

    def build(self, config: dict[str, Any]) -> Any:
        return self.modules[config.pop("type")](**config)


def test_builds_from_a_registry_and_loads_a_classifier(tiny, tmp_path) -> None:
    source = RMT(tiny)
    torch.save({"model": to_official_names(source.state_dict())}, tmp_path / "rmt.pth")
    registry = Registry()
    register(registry)
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "rmt.pth")}
    model = registry.build({"type": "RMT", **ARGUMENTS, "norm_eval": True, "init_cfg": init})
    model.init_weights()
    assert model.backbone.stem[0][0].weight.equal(source.stem[0][0].weight)
    model.train()
    assert not model.backbone.stem[0][1].training
    maps = model(torch.randn(1, 3, 64, 96))
    assert [x.shape[1:] for x in maps] == [(8, 16, 24), (12, 8, 12), (16, 4, 6), (24, 2, 3)]


def test_a_checkpoint_of_another_size_is_refused(tiny, tmp_path) -> None:
    torch.save(to_official_names(RMT(tiny).state_dict()), tmp_path / "rmt.pth")
    model = DenseRMT(**{**ARGUMENTS, "depths": [1, 1, 1, 1]})
    with pytest.raises(
        CheckpointError, match=r"depths \(1, 2, 1, 1\), the backbone .*\(1, 1, 1, 1"
    ):
        model.init_weights(str(tmp_path / "rmt.pth"))


def test_activation_checkpointing_is_passed_on() -> None:
    model = DenseRMT(**ARGUMENTS, use_checkpoint=True)
    assert all(stage.checkpointing for stage in model.backbone.stages)
    assert isinstance(model.backbone, RMTBackbone)
