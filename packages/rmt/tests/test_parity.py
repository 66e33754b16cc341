"""The authors' networks, their checkpoints and their loss."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, golden_cases
from rmt import RMT, RMTBackbone, RMTConfig, token_label_loss
from rmt.official import from_official_names, to_official_names
from rmt.paper import PAPER, settings

CASES = {case.name: case for case in golden_cases("rmt")}


@pytest.mark.parametrize("name", CASES)
def test_golden_case(name: str) -> None:
    assert CASES[name].failures(PAPER.golden(CASES[name])) == {}


def official(model: RMT | RMTBackbone) -> dict[str, torch.Tensor]:
    return to_official_names(model.state_dict())


@pytest.mark.parametrize("changes", [{}, {"token_labels": True}, {"layer_scale": (True,) * 4}])
def test_names_go_there_and_back(tiny: RMTConfig, changes: dict) -> None:
    model = RMT(replace(tiny, **changes)).eval()
    theirs = official(model)
    assert "layers.0.blocks.0.retention.q_proj.weight" in theirs
    if changes.get("layer_scale"):
        assert theirs["layers.3.blocks.0.gamma_1"].shape == (1, 1, 1, 24)
    back = from_official_names(theirs)
    assert back.keys() == model.state_dict().keys()
    assert all(back[key].equal(value) for key, value in model.state_dict().items())
    again = RMT.from_official(theirs, **settings(tiny))
    images = torch.randn(1, 3, 40, 33)
    assert again(images).equal(model(images))
    assert again.config == model.config


def test_wrapped_and_prefixed_files_load(tiny: RMTConfig, tmp_path) -> None:
    model = RMT(tiny).eval()
    state = {f"module.{key}": value for key, value in official(model).items()}
    torch.save({"model": state, "epoch": 3, "max_accuracy": 84.1}, tmp_path / "best.pth")
    loaded = RMT.from_official(tmp_path / "best.pth", **settings(tiny))
    assert loaded.classifier.weight.equal(model.classifier.weight)


def test_heads_and_decay_are_read_off_the_buffers(tiny: RMTConfig) -> None:
    config = replace(tiny, decay_start=(2, 2.5, 3, 2), decay_spread=(4, 5, 6, 6.5))
    state = official(RMT(config))
    for i in range(4):
        n = config.heads[i]
        exponents = config.decay_start[i] + config.decay_spread[i] * torch.arange(n) / n
        state[f"layers.{i}.Relpos.decay"] = torch.log(1 - 2**-exponents)
        state[f"layers.{i}.Relpos.angle"] = torch.zeros(4)
    loaded = RMT.from_official(state, decomposed=config.decomposed, drop_path=0.0)
    assert loaded.config == config


def test_published_sizes_need_no_settings() -> None:
    state = CASES["s_token_label_96"].state_dict()
    config = RMT.from_official(state).config
    assert config == RMT.variants["rmt_s_token_label"]
    assert RMT.from_official(state, token_labels=False).config == RMT.variants["rmt_s"]


def test_what_nothing_tells_is_asked_for(tiny: RMTConfig) -> None:
    with pytest.raises(ValueError, match=r"tells heads, decay_start, decay_spread, decomposed"):
        RMT.from_official(official(RMT(tiny)))


def test_other_checkpoints_are_refused(tiny: RMTConfig, tiny_backbone) -> None:
    with pytest.raises(CheckpointError, match="not an RMT checkpoint"):
        RMT.from_official({"fc.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"it is a backbone's, for RMTBackbone"):
        RMT.from_official(official(RMTBackbone(tiny_backbone)), **settings(tiny))
    state = official(RMT(tiny))
    del state["layers.0.blocks.0.retention.k_proj.bias"]
    with pytest.raises(
        CheckpointError, match=r"missing: stages\.0\.blocks\.0\.attention\.query_key"
    ):
        RMT.from_official(state, **settings(tiny))


def test_another_token_head_is_refused_and_can_be_left_out(tiny: RMTConfig) -> None:
    state = official(RMT(replace(tiny, token_labels=True)))
    state["aux_head.weight"] = torch.zeros(7, 20)
    with pytest.raises(CheckpointError, match=r"aux_head takes 20 features.*token_labels=False"):
        RMT.from_official(state, **settings(tiny))
    assert not RMT.from_official(state, token_labels=False, **settings(tiny)).config.token_labels


def test_a_head_for_other_classes_is_new(tiny: RMTConfig) -> None:
    model = RMT(tiny)
    with pytest.warns(UserWarning, match="7 classes: the head for 3 is new"):
        loaded = RMT.from_official(official(model), classes=3, **settings(tiny))
    assert loaded.classifier.weight.shape == (3, 20)
    assert loaded.head.projection.weight.equal(model.head.projection.weight)


def test_classifier_and_detector_load_into_the_backbone(tiny: RMTConfig, tiny_backbone) -> None:
    images = torch.randn(1, 3, 64, 48)
    model = RMT(tiny).eval()
    maps = RMTBackbone.from_official(official(model), **settings(tiny))(images)
    expected = F.layer_norm(model.forward_features(images), (24,)).permute(0, 3, 1, 2)
    assert torch.allclose(maps[-1], expected, atol=1e-5)

    dense = RMTBackbone(tiny_backbone).eval()
    torch.nn.init.normal_(dense.norms["1"].weight)
    detector = {f"backbone.{key}": value for key, value in official(dense).items()}
    detector["bbox_head.weight"] = torch.ones(3)
    loaded = RMTBackbone.from_official(detector, out_indices=(1, 3), **settings(tiny))
    assert [x.equal(y) for x, y in zip(loaded(images), dense(images)[1::2], strict=True)] == [1, 1]


def test_token_label_loss_is_the_formula() -> None:
    b, classes, n = 3, 5, 4
    logits, tokens = torch.randn(b, classes), torch.randn(b, n, classes)
    targets = torch.rand(b, classes, 2 + n).softmax(1)
    targets[0, :, 0] = targets[0, :, 1]  # the same best class: half, elsewhere a tenth
    targets[1:, :, 0] = F.one_hot((targets[1:, :, 1].argmax(1) + 1) % classes, classes)
    box = torch.tensor([0, 0, 1, 2])
    for truth in (False, True):
        t = targets[..., 1]
        if truth:
            share = torch.tensor([0.5, 0.9, 0.9])[:, None]
            t = share * t + (1 - share) * targets[..., 0]
        kept = 1 - 2 / n
        t = kept * t + (1 - kept) * t.flip(0)
        image = -(t * logits.log_softmax(-1)).sum(-1).mean()
        each = targets[..., 2:].transpose(1, 2)
        token = -(each * tokens.log_softmax(-1)).sum(-1).mean()
        found = token_label_loss(
            logits, tokens, box, targets, class_weight=0.7, token_weight=0.3, ground_truth=truth
        )
        assert math.isclose(found, 0.7 * image + 0.3 * token, rel_tol=1e-5)
    flat = token_label_loss(logits, tokens, torch.zeros(4, dtype=torch.long), targets[..., 1])
    same = torch.cat([targets[..., :2], targets[..., 1:2].expand(-1, -1, n)], -1)
    assert torch.isclose(flat, token_label_loss(logits, tokens, box * 0, same))


def test_token_label_targets_must_fit() -> None:
    box = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"targets of shape \[2, 3\]: needs \[2, 5\] or \[2, 5, 6"):
        token_label_loss(torch.ones(2, 5), torch.ones(2, 4, 5), box, torch.ones(2, 3))
