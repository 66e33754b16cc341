"""Which network a checkpoint belongs to."""

import pytest
import torch
from attention_core import CheckpointError
from image_restoration_kit import family, require_family

KEYS = {
    "CRAFT": "layers.0.residual_group.hf_blocks.0.attn.temperature",
    "DLGSANet": "deep_feature_extraction.0.body.0.IDynamicDWConv.conv.conv1.1.weight",
    "DRCT": "layers.0.swin1.attn.qkv.weight",
    "HAT": "layers.0.residual_group.overlap_attn.qkv.weight",
    "RAT": "middle_blks.0.layers.0.lambda_ra",
    "RGT": "layers.0.blocks.1.attn.reduction1.weight",
}


def test_every_network_is_known_by_its_own_entries() -> None:
    assert {network: family(["conv_first.weight", key]) for network, key in KEYS.items()} == {
        network: network for network in KEYS
    }
    assert family(["layers.0.residual_group.blocks.0.attn.qkv.weight"]) is None  # SwinIR


def test_a_checkpoint_of_another_family_names_the_right_package() -> None:
    needed = ["conv_first.weight", "upsample.0.weight"]
    state = {KEYS["HAT"]: torch.zeros(1)}
    with pytest.raises(CheckpointError, match="but one of HAT: the package hat loads it"):
        require_family(state, "DRCT", needed)
    with pytest.raises(CheckpointError, match="not a HAT checkpoint: conv_first"):
        require_family(state, "HAT", needed)
    with pytest.raises(CheckpointError, match="missing; it starts with classifier"):
        require_family({"classifier": torch.zeros(1)}, "HAT", needed)
    require_family(dict.fromkeys(needed, torch.zeros(1)), "HAT", needed)
