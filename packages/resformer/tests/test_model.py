"""Sizes, errors and modes of the network."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resformer import ResFormer, ResFormerConfig, multi_size_losses

SIDE = st.integers(1, 9)


@settings(max_examples=10, deadline=None)
@given(rows=SIDE, columns=SIDE, batch=st.integers(0, 2))
def test_any_grid(rows: int, columns: int, batch: int) -> None:
    config = ResFormerConfig(patch_size=3, dim=8, depth=2, heads=2, classes=5, channels=1)
    images = torch.randn(batch, 1, 3 * rows, 3 * columns)
    model = ResFormer(config).eval()
    assert model(images).shape == (batch, 5)
    assert model.feature_map(images).shape == (batch, 8, rows, columns)
    assert [tuple(x.shape) for x in model.class_attention(images)] == [
        (batch, 2, rows, columns)
    ] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 18}, "dim=18: must be a multiple of 4, for the sine map"),
        ({"heads": 5}, "heads=5: must divide dim=24"),
        ({"patch_size": 0}, "patch_size=0: must be an integer of at least 1"),
        ({"depth": 0}, "depth=0: must be an integer of at least 1"),
        ({"classes": -1}, "classes=-1: must be at least 0"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: must be positive"),
        ({"norm_eps": 0}, "norm_eps=0: must be positive"),
        ({"representation": 0}, "representation=0: must be an integer of at least 1"),
        ({"drop_path": 1.0}, r"drop_path=1.0: must be in \[0, 1\)"),
    ],
)
def test_configuration_errors_name_the_field(tiny, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny, **changes)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 10), "8 x 10 pixels: both sides must be multiples of the patch, 4"),
        ((1, 3, 2, 8), "2 x 8 pixels: both sides must be multiples of the patch, 4"),
        ((1, 3, 0, 8), "0 x 8 pixels"),
        ((1, 1, 8, 8), r"\[1, 1, 8, 8\]: needs \[batch, 3, height, width\]"),
    ],
)
def test_bad_images_are_named(tiny, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResFormer(tiny)(torch.randn(shape))


def test_bad_targets_and_losses_are_named(tiny) -> None:
    with pytest.raises(ValueError, match="target='token': must be one of cls, gap, logit"):
        ResFormer(tiny).view.__wrapped__(ResFormer(tiny), torch.randn(1, 3, 8, 8), "token")
    with pytest.raises(ValueError, match="consistency='kl': must be one of smooth-l1, l2, cosine"):
        multi_size_losses([], torch.ones(1, 2), consistency="kl")


def test_local_positions_start_at_nothing_and_matter_once_they_learn(tiny) -> None:
    """A shuffle of the patches changes no plain ViT but for its positions: here the local ones."""
    model = ResFormer(tiny).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.2)
    torch.nn.init.zeros_(model.positions.weight)
    images = torch.randn(1, 3, 8, 8)
    turned = images.roll(4, -1)
    assert torch.allclose(model(images), model(turned), atol=1e-5)
    torch.nn.init.normal_(model.blocks[0].attention.local.weight)
    assert not torch.allclose(model(images), model(turned), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny, dtype: torch.dtype) -> None:
    model, images = ResFormer(tiny).eval(), torch.randn(2, 3, 16, 12)
    with torch.no_grad():
        full = model(images)
        half = model.to(dtype)(images.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - full).abs().max() < 0.1 * full.std() + 0.02


def test_checkpointing_changes_no_gradient(tiny) -> None:
    images, found = torch.randn(2, 3, 8, 8), []
    model = ResFormer(replace(tiny, drop_path=0.3, depth=3)).train()
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(5)
        model(images).square().mean().backward()
        found.append(model.patch_embedding.weight.grad.clone())
    assert torch.allclose(*found, atol=1e-7)


def test_dropouts_act_in_training_alone(tiny) -> None:
    images = torch.randn(2, 3, 8, 8)
    for name in ("dropout", "token_dropout", "attention_dropout", "drop_path"):
        model = ResFormer(replace(tiny, **{name: 0.5}))
        plain = ResFormer(tiny).eval()
        plain.load_state_dict(model.state_dict())
        assert model.eval()(images).equal(plain(images))
        assert not torch.allclose(model.train()(images), plain(images), atol=1e-4)


def test_without_classes_the_feature_comes_out(tiny) -> None:
    model, images = ResFormer(replace(tiny, classes=0)).eval(), torch.randn(2, 3, 8, 8)
    feature = model.forward_head(model.forward_features(images), pre_logits=True)
    assert torch.allclose(model(images), feature, atol=1e-6)


def test_positions_are_spared_by_weight_decay(tiny) -> None:
    model = ResFormer(tiny)
    assert model.no_weight_decay() == {
        name
        for name, p in model.named_parameters()
        if p.ndim > 1 and any(word in name for word in ("class_token", "positions", "local"))
    }
