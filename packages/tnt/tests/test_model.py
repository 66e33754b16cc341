"""Words and sentences, sizes, errors and modes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tnt import TNT, TNTConfig
from tnt.model import Layer, words_in


@settings(max_examples=12, deadline=None)
@given(
    patch=st.integers(1, 11),
    stride=st.integers(1, 5),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
)
def test_any_patch_stride_and_grid(patch: int, stride: int, rows: int, columns: int) -> None:
    config = TNTConfig(
        image_size=(rows * patch, columns * patch), patch_size=patch, inner_stride=stride,
        outer_dim=4, outer_heads=1, inner_dim=2, inner_heads=2, depth=1, classes=3,
    )  # fmt: skip
    model = TNT(config).eval()
    images = torch.randn(2, 3, *config.image_size)
    assert model(images).shape == (2, 3)
    words = model.word_vectors(images)
    assert words.shape == (2 * rows * columns, words_in(patch, stride), 2)
    assert model.forward_features(images).shape == (2, 1 + rows * columns, 4)


def test_words_see_their_own_patch_only(tiny: TNTConfig) -> None:
    model, images = TNT(tiny).eval(), torch.randn(1, 3, 16, 24)
    before = model.word_vectors(images)
    images[:, :, 3, 7] += 1  # the last column of the first patch
    changed = (model.word_vectors(images) != before).flatten(1).any(1)
    assert changed.tolist() == [True, False, False, False, False, False]


def test_words_are_the_convolution_of_each_patch(tiny: TNTConfig) -> None:
    model, images = TNT(replace(tiny, inner_stride=3)).eval(), torch.randn(1, 3, 16, 24)
    patch = images[:, :, 8:16, 16:24]  # the last one
    expected = model.word_embedding(patch).flatten(2).mT[0]
    assert torch.allclose(model.word_vectors(images)[-1], expected, atol=1e-6)


def test_inner_transformer_does_not_know_the_order_of_words(tiny: TNTConfig) -> None:
    layer = Layer(tiny, 6, 2, 0.0)
    words, order = torch.randn(5, 4, 6), torch.tensor([2, 0, 3, 1])
    assert torch.allclose(layer(words)[:, order], layer(words[:, order]), atol=1e-6)


def test_updated_words_enter_the_sentences_and_spare_the_class_token(tiny: TNTConfig) -> None:
    block = TNT(tiny).blocks[0]
    words, tokens = torch.randn(6, 4, 6), torch.randn(1, 7, 12)
    kept = tokens.clone()
    updated, told = block.tell(words, tokens)
    assert updated.equal(block.inner(words))
    assert told[:, 1:].equal(tokens[:, 1:] + block.sentence(updated.reshape(1, 6, 24)))
    assert told[:, 0].equal(tokens[:, 0])
    assert tokens.equal(kept)
    assert block(words, tokens)[1].equal(block.outer(told))


def test_parts_can_be_left_out(tiny: TNTConfig) -> None:
    images = torch.randn(2, 3, 16, 24)
    for off in ("inner", "inner_positions", "outer_positions"):
        model = TNT(replace(tiny, **{off: False})).eval()
        names = {"inner": "blocks.0.inner.fc1.weight"}.get(off, off)
        assert names not in model.state_dict()
        assert model(images).shape == (2, 7)
    bare = TNT(replace(tiny, inner_positions=False, outer_positions=False)).eval()
    patches = images.unflatten(2, (2, 8)).unflatten(4, (3, 8))
    moved = patches.flip(2).flatten(4, 5).flatten(2, 3)
    assert torch.allclose(bare(images), bare(moved), atol=1e-6)


def test_gate_follows_the_formula(tiny: TNTConfig) -> None:
    layer = Layer(tiny, 12, 3, 0.0, gated=True)
    x = torch.randn(2, 7, 12)
    y = x + layer.attention(layer.attention_norm(x))
    u = layer.fc2(torch.nn.functional.gelu(layer.fc1(layer.mlp_norm(y))))
    first, second = layer.gate[1], layer.gate[3]
    a = second(first(layer.gate[0](u.mean(1))).relu()).tanh()[:, None]
    assert torch.allclose(layer(x), y + u + a * u, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outer_heads": 5}, "outer_dim=12: must be a multiple of its 5 heads"),
        ({"inner_heads": 4}, "inner_dim=6: must be a multiple of its 4 heads"),
        ({"image_size": (16, 20)}, r"image_size=\(16, 20\): must be multiples of patch_size=8"),
        ({"depth": 0}, "depth=0: must be an integer of at least 1"),
        ({"drop_path": 1.0}, r"drop_path=1.0: must be in \[0, 1\)"),
        ({"token_dropout": -0.1}, r"token_dropout=-0.1: must be in \[0, 1\)"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: must be positive"),
        ({"classes": -1}, "classes=-1: must be at least 0"),
    ],
)
def test_configuration_errors_name_the_field(tiny, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny, **changes)


def test_bad_images_are_named(tiny: TNTConfig) -> None:
    model = TNT(tiny).eval()
    with pytest.raises(ValueError, match=r"\[2, 1, 16, 24\]: needs \[batch, 3, height, width\]"):
        model(torch.ones(2, 1, 16, 24))
    with pytest.raises(ValueError, match="24 x 16 pixels, the model takes 16 x 24: resize them"):
        model(torch.ones(1, 3, 24, 16))
    model = TNT(replace(tiny, dynamic_size=True)).eval()
    with pytest.raises(ValueError, match=r"16 x 20 pixels: both sides must be multiples.*patch, 8"):
        model(torch.ones(1, 3, 16, 20))


def test_dynamic_size_equals_a_resized_network(tiny: TNTConfig) -> None:
    model = TNT(replace(tiny, dynamic_size=True)).eval()
    images = torch.randn(1, 3, 32, 40)
    assert torch.allclose(model(images), model.resized((32, 40))(images), atol=1e-6)


def test_empty_batch_and_no_classes(tiny: TNTConfig) -> None:
    model = TNT(replace(tiny, classes=0)).eval()
    assert model(torch.ones(0, 3, 16, 24)).shape == (0, 12)
    images = torch.randn(2, 3, 16, 24)
    assert model(images).equal(model.forward_features(images)[:, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny: TNTConfig, dtype: torch.dtype) -> None:
    model, images = TNT(tiny).eval(), torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        full = model(images)
        half = model.to(dtype)(images.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - full).abs().max() < 0.1 * full.std() + 0.02


def test_checkpointing_changes_no_gradient(tiny: TNTConfig) -> None:
    images, found = torch.randn(2, 3, 16, 24), []
    model = TNT(replace(tiny, drop_path=0.3, token_dropout=0.1, attention_dropout=0.1)).train()
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(5)
        model(images).square().mean().backward()
        found.append(model.word_embedding.weight.grad.clone())
    assert torch.allclose(*found, atol=1e-7)


def test_stochastic_depth_grows_and_drops_words_by_patch(tiny: TNTConfig) -> None:
    model = TNT(replace(tiny, depth=3, drop_path=0.5)).train()
    rates = [(block.inner.drop_path.rate, block.outer.drop_path.rate) for block in model.blocks]
    assert rates == [(0, 0), (0.25, 0.25), (0.5, 0.5)]
    inner = model.blocks[2].inner
    for layer in (inner.attention.out, inner.fc2):
        torch.nn.init.zeros_(layer.weight), torch.nn.init.ones_(layer.bias)
    added = inner(torch.zeros(400, 4, 6))
    assert set(added.unique().tolist()) == {0.0, 2.0, 4.0}
    assert (added == added[:, :1, :1]).all()  # a patch as a whole


def test_class_attention_is_a_share_of_one(tiny: TNTConfig) -> None:
    model, images = TNT(tiny).eval(), torch.randn(2, 3, 16, 24)
    maps = model.class_attention(images)
    assert [tuple(x.shape) for x in maps] == [(2, 3, 2, 3)] * 2
    assert all(0 < x.sum((2, 3)).max() < 1 for x in maps)


def test_training_attends_as_evaluation_does(tiny: TNTConfig) -> None:
    """Short sequences keep their maps where gradients are wanted."""
    layer, words = Layer(tiny, 6, 2, 0.0), torch.randn(5, 4, 6)
    with torch.no_grad():
        expected = layer(words)
    assert torch.allclose(layer(words), expected, atol=1e-6)
    long = torch.randn(1, 40, 6)
    with torch.no_grad():
        expected = layer(long)
    assert torch.allclose(layer(long), expected, atol=1e-6)
