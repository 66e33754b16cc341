"""The authors' network, their loss and their checkpoints."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, golden_cases
from resformer import ResFormer, ResFormerConfig, View, multi_size_losses
from resformer.model import sine_map
from resformer.official import to_official_names
from resformer.paper import PAPER, settings

CASES = {case.name: case for case in golden_cases("resformer")}


@pytest.mark.parametrize("name", CASES)
def test_golden_case(name: str) -> None:
    assert CASES[name].failures(PAPER.golden(CASES[name])) == {}


def test_rectangles_are_the_formula_written_out(tiny: ResFormerConfig) -> None:
    """Global and local positions, patch by patch, where the authors' code would take a square."""
    model, (h, w), dim = ResFormer(tiny).eval(), (2, 8), tiny.dim
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    attention, x = model.blocks[0].attention, torch.randn(2, 1 + h * w, dim)
    found = attention(x, (h, w))

    query, key, value = attention.qkv(x).view(2, -1, 3, 3, 8).permute(2, 0, 3, 1, 4)
    out = (query @ key.mT / 8**0.5).softmax(-1) @ value
    for i in range(h * w):
        y, x_ = divmod(i, w)
        out[:, :, 1 + i] += attention.local.bias
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if 0 <= y + dy < h and 0 <= x_ + dx < w:
                    tap = attention.local.weight[:, 0, 1 + dy, 1 + dx]
                    out[:, :, 1 + i] += tap * value[:, :, 1 + (y + dy) * w + x_ + dx]
    expected = attention.out(out.transpose(1, 2).flatten(2))
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(attention.class_token(x), expected[:, :1], atol=1e-5)

    waves = sine_map(dim, (h, w), torch.device("cpu"))
    for channel in range(dim):
        half, k = divmod(channel, dim // 2)
        place = torch.arange(1.0, 1 + (h, w)[half]) / ((h, w)[half] + 1e-6) * 2 * torch.pi
        wave = (torch.sin, torch.cos)[k % 2](place / 10000 ** (2 * (k // 2) / (dim // 2)))
        grid = wave[:, None] if half == 0 else wave[None]
        assert torch.allclose(waves[0, channel], grid.expand(h, w), atol=1e-6)


def test_only_the_class_token_is_computed_in_the_last_block(tiny: ResFormerConfig) -> None:
    model = ResFormer(replace(tiny, qkv_bias=False, representation=5)).eval()
    images = torch.randn(2, 3, 12, 20)
    assert torch.allclose(model(images), model.forward_head(model.forward_features(images)))
    assert torch.allclose(
        model.feature_map(images)[:, :, 0, 3], model.forward_features(images)[:, 4]
    )


@pytest.mark.parametrize("kind", ["smooth-l1", "l2", "cosine", None])
def test_each_size_learns_from_the_one_before(kind: str | None) -> None:
    views = [View(torch.randn(3, 5), torch.randn(3, 8, requires_grad=True)) for _ in range(3)]
    target = torch.rand(3, 5).softmax(-1)
    losses = multi_size_losses(views, target, consistency=kind, weight=0.7)
    plain = torch.stack([-(target * v.logits.log_softmax(-1)).sum(-1).mean() for v in views])
    assert torch.allclose(losses[0], plain[0])
    for i, (large, small) in enumerate(pairwise(views), 1):
        teacher, student = large.representation.detach(), small.representation
        white = (teacher - teacher.mean(-1, keepdim=True)) / teacher.std(-1, False, keepdim=True)
        distance = {
            "smooth-l1": F.huber_loss(student, white),
            "l2": (student - teacher).square().mean(),
            "cosine": 1 - (F.normalize(student) * F.normalize(teacher)).sum(-1).mean(),
            None: torch.zeros(()),
        }[kind]
        assert torch.allclose(losses[i] - plain[i], 0.7 * distance, atol=1e-5)
    if kind:
        losses.sum().backward()
        assert views[0].representation.grad is None  # the largest size is taught by labels alone
        assert views[2].representation.grad is not None


def test_view_gives_each_target(tiny: ResFormerConfig) -> None:
    model, images = ResFormer(tiny).train(), torch.randn(2, 3, 8, 8)
    tokens = model.forward_features(images)
    for target, expected in (("cls", tokens[:, 0]), ("gap", tokens[:, 1:].mean(1))):
        view = model.view(images, target)
        assert torch.allclose(view.representation, expected, atol=1e-6)
        assert torch.allclose(view.logits, model(images), atol=1e-6)
    assert model.view(images, "logit").representation.equal(model(images))


def official(model: ResFormer) -> dict[str, torch.Tensor]:
    return to_official_names(model.state_dict())


def test_everything_is_read_off_the_file(tiny: ResFormerConfig, tmp_path) -> None:
    model = ResFormer(replace(tiny, qkv_bias=False, representation=12, channels=1)).eval()
    theirs = official(model)
    for key in ("cls_token", "pos_embed.embed_layer.weight", "blocks.1.attn.get_v.bias"):
        assert key in theirs
    assert theirs["pre_logits.fc.weight"].shape == (12, 24)
    state = {f"module.{key}": value for key, value in theirs.items()}
    torch.save({"model": state, "epoch": 299, "scaler": {}}, tmp_path / "checkpoint.pth")
    loaded = ResFormer.from_official(tmp_path / "checkpoint.pth", **settings(model.config))
    assert loaded.config == model.config
    images = torch.randn(1, 1, 8, 16)
    assert loaded(images).equal(model(images))


def test_a_head_for_other_classes_is_new(tiny: ResFormerConfig) -> None:
    model = ResFormer(tiny)
    with pytest.warns(UserWarning, match="7 classes: the head for 3 is new"):
        loaded = ResFormer.from_official(official(model), classes=3)
    assert loaded.classifier.out_features == 3
    assert loaded.blocks[1].fc2.weight.equal(model.blocks[1].fc2.weight)


def test_a_plain_vit_lends_its_weights(tiny: ResFormerConfig) -> None:
    vit = {k: v for k, v in official(ResFormer(tiny)).items() if "get_v" not in k}
    vit = {k: v for k, v in vit.items() if "pos_embed" not in k}
    vit["pos_embed"] = torch.zeros(1, 197, 24)
    model = ResFormer.from_vit(vit, heads=3)
    assert model.config == tiny
    assert not model.blocks[0].attention.local.weight.any()
    assert model.positions.weight.any()
    with pytest.raises(
        CheckpointError, match="a plain ViT with a table of positions: use from_vit"
    ):
        ResFormer.from_official(vit)
    with pytest.raises(CheckpointError, match="distillation token"):
        ResFormer.from_vit({**vit, "dist_token": torch.zeros(1, 1, 24)})


def test_other_checkpoints_are_refused(tiny: ResFormerConfig) -> None:
    with pytest.raises(CheckpointError, match=r"not a ResFormer checkpoint: cls_token.*fc\.weight"):
        ResFormer.from_official({"fc.weight": torch.ones(1)})
    state = official(ResFormer(tiny))
    with pytest.raises(CheckpointError, match="not a plain ViT checkpoint: pos_embed missing"):
        ResFormer.from_vit(state)
    del state["blocks.1.attn.proj.bias"]
    with pytest.raises(CheckpointError, match=r"missing: blocks\.1\.attention\.out\.bias"):
        ResFormer.from_official(state)
