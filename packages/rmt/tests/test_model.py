"""Sizes, errors and modes of classifier and backbone."""

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rmt import RMT, RMTBackbone, RMTBackboneConfig, RMTConfig
from rmt.convolution import ConvNorm
from rmt.token_labels import draw_box, inside

from .conftest import SIZES

SIDE = st.sampled_from([4, 5, 13, 31, 32, 33, 47, 64, 71])


@settings(max_examples=12, deadline=None)
@given(h=SIDE, w=SIDE)
def test_any_size(h: int, w: int) -> None:
    config = RMTConfig(**SIZES, projection=20, classes=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert RMT(config).eval()(torch.randn(1, 3, h, w)).shape == (1, 7)
        maps = RMTBackbone(RMTBackboneConfig(**SIZES)).eval()(torch.randn(1, 3, h, w))
    for i, x in enumerate(maps):
        stride = 4 * 2**i
        assert x.shape == (1, SIZES["dims"][i], -(-h // stride), -(-w // stride))
        assert x.is_contiguous()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": (2, 3, 2, 3, 1)}, r"heads=\(2, 3, 2, 3, 1\): needs 4 entries"),
        ({"heads": (3, 3, 2, 4)}, "8 over 3 heads is not an even head size"),
        ({"heads": (8, 3, 2, 4)}, "8 over 8 heads is not an even head size"),
        ({"depths": (1, 0, 1, 1)}, r"depths=\(1, 0, 1, 1\): must be an integer of at least 1"),
        ({"drop_path": 1.0}, r"drop_path=1.0: must be in \[0, 1\)"),
        ({"decay_start": (0, 2, 2, 2)}, "decay_start.*must be positive"),
        ({"decay_spread": (-1, 2, 2, 2)}, "decay_spread.*must be at least 0"),
        ({"mlp_ratios": (0, 2, 2, 2)}, "mlp_ratios.*must be positive"),
        ({"layer_scale_init": 0.0}, "layer_scale_init=0.0: must be positive"),
        ({"classes": -1}, "classes=-1: must be at least 0"),
        ({"classes": 0, "token_labels": True}, "token_labels=True: needs classes"),
        ({"dims": (9, 12, 16, 24), "heads": (1, 3, 2, 4)}, "9 over 1 heads"),
    ],
)
def test_configuration_errors_name_the_field(tiny, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny, **changes)


@pytest.mark.parametrize("indices", [(4,), (), (1, 0), (0, 0), (-1,)])
def test_out_indices_must_rise_within_the_stages(tiny_backbone, indices: tuple) -> None:
    with pytest.raises(ValueError, match=r"out_indices=.*must rise, from \[0, 1, 2, 3\]"):
        replace(tiny_backbone, out_indices=indices)


def test_bad_images_are_named(tiny) -> None:
    model = RMT(tiny).eval()
    with pytest.raises(ValueError, match=r"\[2, 1, 64, 64\]: needs \[batch, 3, height, width\]"):
        model(torch.ones(2, 1, 64, 64))
    with pytest.raises(ValueError, match="3 x 64 pixels: needs at least 4 a side"):
        model(torch.ones(1, 3, 3, 64))
    with pytest.warns(UserWarning, match="enlarge them to at least 32"):
        model(torch.ones(1, 3, 16, 64))


def test_empty_batch_and_nan(tiny) -> None:
    model = RMT(tiny).eval()
    assert model(torch.ones(0, 3, 64, 64)).shape == (0, 7)
    assert model(torch.full((1, 3, 64, 64), torch.nan)).isnan().all()


def test_without_classes_the_feature_comes_out(tiny) -> None:
    model = RMT(replace(tiny, classes=0)).eval()
    images = torch.randn(2, 3, 64, 64)
    feature = model.forward_head(model.forward_features(images), pre_logits=True)
    assert model(images).equal(feature)
    assert feature.shape == (2, 20)


def test_one_value_per_channel_in_training_is_torchs_error(tiny) -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        RMT(tiny).train()(torch.randn(1, 3, 32, 32))


def test_token_labels_add_half_of_the_best_token(tiny) -> None:
    model = RMT(replace(tiny, token_labels=True)).eval()
    images = torch.randn(2, 3, 96, 64)
    x = model.forward_features(images)
    tokens = model.token_logits(x)
    assert tokens.shape == (2, 6, 7)
    assert torch.allclose(model(images), model.forward_head(x) + 0.5 * tokens.max(1)[0])
    with pytest.raises(ValueError, match="this model has no token head"):
        RMT(tiny).token_logits(x)


def test_token_label_training_swaps_a_box_and_puts_it_back(tiny) -> None:
    """With everything swapped, logits are the flipped batch's and tokens their own image's."""
    model = RMT(replace(tiny, token_labels=True)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images = torch.randn(2, 3, 64, 96)
    apart = model(images, torch.tensor([0, 0, 0, 0]))
    swapped = model(images, torch.tensor([0, 0, 2, 3]))
    assert torch.allclose(swapped.logits, apart.logits.flip(0), atol=1e-5)
    assert torch.allclose(swapped.token_logits, apart.token_logits, atol=1e-5)
    part = model(images, torch.tensor([0, 1, 2, 2]))
    assert not torch.allclose(part.logits, apart.logits)
    drawn = model(images)
    assert drawn.box.shape == (4,)
    with pytest.raises(ValueError, match="64 x 80 pixels: training with token labels needs mult"):
        model(torch.randn(2, 3, 64, 80))


def test_boxes_cover_every_size_and_stay_inside() -> None:
    generator = torch.Generator().manual_seed(1)
    boxes = torch.stack([draw_box(7, 7, generator=generator) for _ in range(600)])
    assert boxes.min() == 0
    assert boxes.max() == 7
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.max() == 6  # an odd side loses one
    # Uncut, the share is uniform: sides int(7 sqrt(u)) // 2 * 2, so 0 where 7 sqrt(u) < 2.
    empty = (sides == 0).any(1).float().mean()
    assert abs(empty - 4 / 49) < 0.04
    assert inside(torch.tensor([1, 0, 3, 2]), 4, 3).sum() == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny, dtype: torch.dtype) -> None:
    model, images = RMT(tiny).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        full = model(images)
        half = model.to(dtype)(images.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - full).abs().max() < 0.1 * full.std() + 0.02


def test_checkpointing_changes_no_gradient(tiny) -> None:
    images, found = torch.randn(2, 3, 64, 64), []
    model = RMT(replace(tiny, drop_path=0.3)).train()
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(5)
        model(images).square().mean().backward()
        found.append(model.stem[0][0].weight.grad.clone())
    assert torch.allclose(*found, atol=1e-7)


def test_stochastic_depth_drops_whole_branches(tiny) -> None:
    block = RMT(replace(tiny, drop_path=0.5, depths=(1, 1, 1, 2))).stages[3].blocks[1].train()
    assert block.drop_path == 0.5
    x, branch = torch.zeros(2000, 1, 1, 24), torch.ones(2000, 1, 1, 24)
    kept = block._add(x, branch, None)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert abs(kept.mean() - 1) < 0.1
    assert block.eval()._add(x, branch, None).equal(branch)


def test_inference_folds_batch_norms_into_their_convolutions() -> None:
    torch.manual_seed(0)
    layer = ConvNorm(3, 4, stride=2)
    for tensor in (layer[1].weight, layer[1].bias, layer[1].running_mean):
        torch.nn.init.normal_(tensor)
    image = torch.randn(2, 3, 9, 8)
    layer[1].running_var.uniform_(0.5, 2)
    expected = layer.eval()(image)
    assert "BatchNorm" in expected.grad_fn.name()
    with torch.no_grad():
        torch.testing.assert_close(layer(image), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.double()(image.double()).float(), expected)
        layer.float().train()(image)
    assert (layer.eval()(image) - expected).abs().max() > 1e-3  # training moved the statistics


def test_batch_norms_freeze_only_on_request(tiny_backbone) -> None:
    images = torch.randn(2, 3, 64, 64)
    for frozen in (False, True):
        model = RMTBackbone(replace(tiny_backbone, frozen_batch_norm=frozen)).train()
        before = model.stem[0][1].running_mean.clone()
        model(images)
        assert model.stem[0][1].running_mean.equal(before) == frozen
        assert model.stem[0][1].weight.requires_grad != frozen


COMPILED = """
import einops, torch
from rmt import RMT, RMTConfig
torch.compiler.allow_in_graph(einops.rearrange)  # its parsing would take most of the time
torch.manual_seed(0)
model = RMT(RMTConfig(
    dims=(8, 12), depths=(1, 1), heads=(2, 2), mlp_ratios=(2, 2), decay_start=(2, 2),
    decay_spread=(4, 4), decomposed=(True, False), layer_scale=(False, True), projection=8,
)).train()
images, gradients = torch.randn(2, 3, 32, 32), []
for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = run(images)
    out.float().square().mean().backward()
    gradients.append(model.stem[0][0].weight.grad.clone())
gap = (gradients[0] - gradients[1]).abs().max() / gradients[0].std()
assert gap < 0.2, gap
"""


def test_training_in_bf16_compiles_without_graph_breaks() -> None:
    """In a process of its own: the shape checks of the test run would break the graph."""
    command = [sys.executable, "-W", "ignore", "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
