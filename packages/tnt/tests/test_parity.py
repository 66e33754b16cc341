"""The authors' networks and checkpoints; timm's own TNT as a second oracle."""

from dataclasses import replace

import pytest
import timm
import torch
from attention_core import CheckpointError, golden_cases
from einops import rearrange
from tnt import TNT, VARIANTS, TNTConfig
from tnt.model import resample
from tnt.official import from_official_names, to_official_names, to_timm_names
from tnt.paper import PAPER, settings

CASES = {case.name: case for case in golden_cases("tnt")}


@pytest.mark.parametrize("name", CASES)
def test_golden_case(name: str) -> None:
    assert CASES[name].failures(PAPER.golden(CASES[name])) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qkv_bias": True, "squeeze_excite": True, "channels": 1, "inner_stride": 3},
        {"inner": False, "inner_positions": False, "classes": 0},
        {"outer_positions": False, "mlp_ratio": 2.7},
    ],
)
def test_names_go_there_and_back(tiny: TNTConfig, changes: dict) -> None:
    model = TNT(replace(tiny, **changes)).eval()
    theirs = to_official_names(model.state_dict())
    assert "blocks.0.outer_attn.qk.weight" in theirs
    assert ("blocks.1.se_layer.fc.3.weight" in theirs) == model.config.squeeze_excite
    back = from_official_names({**theirs, "outer_tokens": torch.zeros(1, 6, 12)})
    assert back.keys() == model.state_dict().keys()
    again = TNT.from_official({**theirs, "outer_tokens": torch.zeros(1)}, **settings(model.config))
    images = torch.randn(1, model.config.channels, 16, 24)
    assert again(images).equal(model(images))
    assert replace(again.config, mlp_ratio=model.config.mlp_ratio) == model.config


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True, "image_size": (24, 24)}])
def test_timms_own_network_agrees(tiny: TNTConfig, changes: dict) -> None:
    ours = TNT(replace(tiny, **changes)).eval()
    torch.nn.init.normal_(ours.outer_positions), torch.nn.init.normal_(ours.inner_positions)
    config = ours.config
    theirs = timm.models.tnt.TNT(
        img_size=config.image_size, patch_size=8, num_classes=7, embed_dim=12, inner_dim=6, depth=2,
        num_heads_inner=2, num_heads_outer=3, qkv_bias=config.qkv_bias, mlp_ratio=2,
    ).eval()  # fmt: skip
    for block in theirs.blocks:  # timm's inner MLP is four times as wide whatever mlp_ratio says
        block.mlp_in = timm.layers.Mlp(6, 12)
    theirs.load_state_dict(to_timm_names(ours.state_dict(), (2, 2)))
    images = torch.randn(2, 3, *config.image_size)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)
    again = TNT.from_official(theirs.state_dict(), **settings(config))
    assert again(images).equal(ours(images))


def test_timms_published_network_loads_at_its_size_and_another() -> None:
    with torch.device("meta"):
        layout = timm.create_model("tnt_s_patch16_224").state_dict()
    state = {key: torch.randn(value.shape) * 0.05 for key, value in layout.items()}
    images = torch.randn(1, 3, 96, 96)
    theirs = timm.create_model("tnt_s_patch16_224", img_size=96).eval()
    theirs.load_state_dict(timm.models.tnt.checkpoint_filter_fn(dict(state), theirs))
    ours = TNT.from_official(state, image_size=96)
    assert ours.config == replace(VARIANTS["tnt_s"], image_size=(96, 96), drop_path=0.0)
    with torch.no_grad():
        gap = (ours(images) - theirs(images)).abs().max()
    assert gap < 1e-4 * theirs(images).std()


def test_timms_legacy_form_is_refused() -> None:
    with torch.device("meta"):
        state = timm.create_model("tnt_s_legacy_patch16_224").state_dict()
    with pytest.raises(CheckpointError, match="this is timm's tnt_s_legacy_patch16_224"):
        TNT.from_official(state)


def test_wrapped_and_prefixed_files_load(tiny: TNTConfig, tmp_path) -> None:
    model = TNT(tiny)
    state = {f"module.{k}": v for k, v in to_official_names(model.state_dict()).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "best.pth.tar")
    loaded = TNT.from_official(tmp_path / "best.pth.tar", **settings(tiny))
    assert loaded.classifier.weight.equal(model.classifier.weight)


def test_positions_follow_the_asked_size(tiny: TNTConfig) -> None:
    config = replace(tiny, image_size=(32, 32))
    model = TNT(config).eval()
    theirs = to_official_names(model.state_dict())
    told = {**settings(config), "source_size": None}
    found = TNT.from_official(theirs, **{**told, "image_size": (16, 64)})
    assert found.config.image_size == (16, 64)
    table = rearrange(model.outer_positions[0, 1:], "(y x) d -> d y x", y=4)
    expected = torch.nn.functional.interpolate(table[None], (2, 8), mode="bicubic", antialias=True)
    assert found.outer_positions[0, 1:].T.reshape(1, 12, 2, 8).allclose(expected, atol=1e-6)
    assert found.outer_positions[0, 0].equal(model.outer_positions[0, 0])
    assert model.resized((16, 64)).outer_positions.equal(found.outer_positions)
    same = model.outer_positions
    assert resample(same, (4, 4), (4, 4)) is same


def test_what_nothing_tells_is_asked_for(tiny: TNTConfig) -> None:
    state = to_official_names(TNT(tiny).state_dict())
    told = settings(tiny)
    with pytest.raises(ValueError, match="outer_dim=12 and inner_dim=6 tells inner_heads"):
        TNT.from_official(state, **{**told, "inner_heads": None})
    with pytest.raises(CheckpointError, match="6 patches, which is not a square: give source_size"):
        TNT.from_official(state, **{**told, "image_size": None, "source_size": None})
    with pytest.raises(CheckpointError, match="6 patches, which is not an image of 16 x 16"):
        TNT.from_official(state, **{**told, "source_size": (16, 16)})
    with pytest.raises(CheckpointError, match=r"has 4 words in a patch.*inner_stride=3 make 9"):
        TNT.from_official(state, **{**told, "inner_stride": 3})


def test_other_checkpoints_are_refused(tiny: TNTConfig) -> None:
    with pytest.raises(CheckpointError, match="not a TNT checkpoint: cls_token"):
        TNT.from_official({"fc.weight": torch.ones(1)})
    state = to_official_names(TNT(tiny).state_dict())
    del state["blocks.1.inner_attn.v.weight"]
    with pytest.raises(CheckpointError, match=r"missing: blocks\.1\.inner\.attention\.qkv\.weight"):
        TNT.from_official(state, **settings(tiny))


def test_a_head_for_other_classes_is_new(tiny: TNTConfig) -> None:
    model = TNT(tiny)
    state = to_official_names(model.state_dict())
    with pytest.warns(UserWarning, match="7 classes: the head for 3 is new"):
        loaded = TNT.from_official(state, classes=3, **settings(tiny))
    assert loaded.classifier.weight.shape == (3, 12)
    assert loaded.norm.weight.equal(model.norm.weight)
