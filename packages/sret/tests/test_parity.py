"""The authors' networks, their checkpoints and their loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, golden_cases
from sret import SReT, SReTConfig, distillation_loss
from sret.official import from_official_names, to_official_names
from sret.paper import PAPER, settings

CASES = {case.name: case for case in golden_cases("sret")}


@pytest.mark.parametrize("name", CASES)
def test_golden_case(name: str) -> None:
    assert CASES[name].failures(PAPER.golden(CASES[name])) == {}


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("changes", [{}, {"depths": (6, 3)}, {"shared_blocks": (4, 2)}])
def test_names_go_there_and_back(tiny: SReTConfig, changes: dict, repeat: bool) -> None:
    model = SReT(replace(tiny, **changes)).eval()
    theirs = to_official_names(model.state_dict(), model.config, repeat=repeat)
    first = model.stages[0].blocks[0].attention.qkv.weight
    assert theirs["transformers.0.blocks.0.attn.qkv.weight"].equal(first)
    loops = model.config.depths[0] // model.config.shared_blocks[0]
    assert ("transformers.0.blocks.2.attn.qkv.weight" in theirs) == (repeat or loops == 1)
    back = from_official_names(theirs, model.config)
    assert back.keys() == model.state_dict().keys()
    told = {**settings(model.config), "shared_blocks": None}  # read off the file
    again = SReT.from_official(theirs, **told)
    assert again.config == model.config
    images = torch.randn(1, 3, 64, 64)
    assert again(images).equal(model(images))


def test_repetitions_must_agree(tiny: SReTConfig) -> None:
    theirs = to_official_names(SReT(tiny).state_dict(), tiny)
    theirs["transformers.0.blocks.2.mlp.fc1.bias"] = torch.ones(16)
    with pytest.raises(CheckpointError, match=r"blocks\.2\.mlp\.fc1\.bias differs from the block"):
        SReT.from_official(theirs, **settings(tiny))


def test_published_sizes_need_no_settings(tmp_path) -> None:
    state = {f"module.{key}": value for key, value in CASES["t_224"].state_dict().items()}
    torch.save({"model": state, "epoch": 299}, tmp_path / "SReT_T.pth")
    loaded = SReT.from_official(tmp_path / "SReT_T.pth", drop_path=0.1)
    assert loaded.config == SReT.variants["sret_t"]
    whole = SReT.from_official(tmp_path / "SReT_T.pth", sliced=False)
    assert whole.config == SReT.variants["sret_t_wo_slice"]


def test_positions_follow_the_asked_size(tiny: SReTConfig) -> None:
    model = SReT(tiny)
    theirs = to_official_names(model.state_dict(), tiny)
    found = SReT.from_official(theirs, image_size=(64, 96), **settings(tiny))
    expected = F.interpolate(model.positions, (8, 12), mode="bicubic", antialias=True)
    assert found.config.image_size == (64, 96)
    assert found.positions.equal(expected)
    assert model.resized((64, 96)).positions.equal(expected)


def test_what_nothing_tells_is_asked_for(tiny: SReTConfig) -> None:
    state = to_official_names(SReT(tiny).state_dict(), tiny)
    with pytest.raises(ValueError, match=r"dims \(8, 16\) and depths \(4, 2\) tells heads"):
        SReT.from_official(state, sliced=False)
    with pytest.raises(ValueError, match="tells slices: give it by keyword"):
        SReT.from_official(state, heads=(2, 4))


def test_other_checkpoints_are_refused(tiny: SReTConfig) -> None:
    with pytest.raises(CheckpointError, match="not an SReT checkpoint: pos_embed"):
        SReT.from_official({"fc.weight": torch.ones(1)})
    state = to_official_names(SReT(tiny).state_dict(), tiny)
    del state["transformers.1.blocks.1.norm1.bias"]
    with pytest.raises(CheckpointError, match=r"missing: stages\.1\.projections\.0\.norm\.bias"):
        SReT.from_official(state, **settings(tiny))


def test_a_head_for_other_classes_is_new(tiny: SReTConfig) -> None:
    model = SReT(tiny)
    state = to_official_names(model.state_dict(), tiny)
    with pytest.warns(UserWarning, match="7 classes: the head for 3 is new"):
        loaded = SReT.from_official(state, classes=3, **settings(tiny))
    assert loaded.classifier.weight.shape == (3, 16)
    assert loaded.norm.weight.equal(model.norm.weight)


def test_distillation_is_the_cross_entropy_of_soft_labels() -> None:
    student, teacher = torch.randn(2, 5, 9)
    for t in (1.0, 3.0):
        expected = F.cross_entropy(student / t, (teacher / t).softmax(-1))
        found = distillation_loss(student, teacher, temperature=t)
        assert torch.allclose(found, expected)
    with pytest.raises(ValueError, match=r"shape \[5, 8\], the student's \[5, 9\]: they must tell"):
        distillation_loss(student, teacher[:, :8])
