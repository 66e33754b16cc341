"""Recursion, slices, permutations, sizes, errors and modes."""

import re
from dataclasses import replace

import pytest
import torch
from attention_core import count_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from sret import SReT, SReTConfig
from sret.model import SlicedAttention, fixed_order

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), loops=st.integers(1, 4))
def test_any_size_and_loops(rows: int, columns: int, loops: int) -> None:
    config = SReTConfig(
        image_size=(8 * rows, 8 * columns), dims=(4, 8), heads=(2, 1), depths=(2 * loops, loops),
        shared_blocks=(2, 1), slices=(rows, 1), recursive_slices=(columns, 1), classes=3,
    )  # fmt: skip
    model, images = SReT(config).eval(), torch.randn(2, 3, *config.image_size)
    assert model(images).shape == (2, 3)
    assert [tuple(x.shape[1:3]) for x in model.levels(images)] == config.grids(config.image_size)


def test_blocks_are_shared_and_projections_are_not(tiny: SReTConfig) -> None:
    counts = [
        count_parameters(SReT(replace(tiny, depths=(2 * loops, loops)))) for loops in (1, 2, 3)
    ]
    stage = SReT(tiny).stages[0]
    assert counts[1] - counts[0] == counts[2] - counts[1]
    other = SReT(tiny).stages[1]
    each = count_parameters(stage.projections[0]), count_parameters(other.projections[0])
    assert counts[1] - counts[0] == 2 * each[0] + each[1]
    calls = []
    for block in stage.blocks:
        block.register_forward_pre_hook(lambda block, args: calls.append((id(block), args[1])))
    stage(torch.randn(1, 8, 8, 8), [None] * len(stage.permuted))
    first, second = map(id, stage.blocks)
    assert calls == [(first, 4), (first, 2), (second, 4), (second, 2)]


def test_gradient_of_a_shared_block_is_the_sum_over_its_applications(tiny: SReTConfig) -> None:
    shared = SReT(replace(tiny, slices=(1, 1), recursive_slices=(1, 1))).eval()
    apart = SReT(replace(shared.config, shared_blocks=tiny.depths)).eval()
    state = shared.state_dict()
    block = r"(stages\.\d\.blocks\.)(\d)"
    names = {k: re.sub(block, lambda m: f"{m[1]}{int(m[2]) // 2}", k) for k in apart.state_dict()}
    apart.load_state_dict({key: state[name] for key, name in names.items()})
    for model in (shared, apart):
        model(IMAGES).square().mean().backward()
    assert torch.allclose(shared(IMAGES), apart(IMAGES), atol=1e-6)
    for i, block in enumerate(shared.stages[0].blocks):
        parts = [apart.stages[0].blocks[2 * i + k].mlp.hidden.weight.grad for k in (0, 1)]
        assert torch.allclose(block.mlp.hidden.weight.grad, sum(parts), atol=1e-7)


def test_slices_are_blocks_of_the_attention_matrix(tiny: SReTConfig) -> None:
    attention, x = SlicedAttention(tiny, 8, 2), torch.randn(2, 12, 8)
    mask = torch.block_diag(*[torch.ones(4, 4)] * 3).bool()
    query, key, value = attention.project(x, 1)
    full = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    expected = attention.out(full.transpose(1, 2).flatten(2))
    assert torch.allclose(attention.out(attention(x, 3)), expected, atol=1e-6)
    weights = attention.weights_of(x, 3, 5)
    assert weights.shape == (2, 2, 12)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2))
    assert not weights[..., :4].any()
    assert not weights[..., 8:].any()


def test_evaluation_is_deterministic_and_the_seed_matters(tiny: SReTConfig) -> None:
    model = SReT(tiny).eval()
    first = model(IMAGES)
    assert model(IMAGES).equal(first)
    other = SReT(replace(tiny, permutation_seed=1)).eval()
    other.load_state_dict(model.state_dict())
    assert not other(IMAGES).equal(first)
    for kind, same in (("random", False), ("identity", True)):
        drawn = SReT(replace(tiny, permutation=kind)).eval()
        drawn.load_state_dict(model.state_dict())
        assert drawn(IMAGES).equal(drawn(IMAGES)) == same
        torch.manual_seed(3)
        once = drawn(IMAGES)
        torch.manual_seed(3)
        assert drawn(IMAGES).equal(once)
    assert drawn(IMAGES).equal(model(IMAGES, [torch.arange(64)] * 2 + [torch.arange(16)]))


def test_training_draws_a_new_order_for_the_whole_batch(tiny: SReTConfig) -> None:
    model = SReT(tiny).train()
    x = torch.zeros(2, 8, 8, 8)
    orders = [model.orders(x), model.orders(x)]
    assert [len(stage) for stage in orders[0]] == [2, 1]
    assert not orders[0][0][0].equal(orders[1][0][0])
    assert orders[0][0][0].sort().values.equal(torch.arange(64))


def test_permutation_is_taken_back(tiny: SReTConfig) -> None:
    block, x = SReT(tiny).stages[0].blocks[0], torch.randn(2, 64, 8)
    order = torch.randperm(64)
    assert torch.allclose(block(x, 1, order), block(x, 1), atol=1e-6)  # one slice: no effect
    inside = block(x[:, order], 4)[:, order.argsort()]
    assert torch.allclose(block(x, 4, order), inside, atol=1e-6)


def test_given_orders_are_checked(tiny: SReTConfig) -> None:
    model = SReT(tiny)
    with pytest.raises(ValueError, match=r"lengths \[64\]: the network takes \[64, 64, 16\]"):
        model(IMAGES, [torch.arange(64)])


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 800), seed=st.integers(0, 2**20), number=st.integers(0, 500))
def test_fixed_orders_are_permutations(n: int, seed: int, number: int) -> None:
    order = fixed_order(n, seed, number, torch.device("cpu"))
    assert order.sort().values.equal(torch.arange(n))
    if n > 50:
        assert not order.equal(fixed_order(n, seed + 1, number, torch.device("cpu")))
        moved = (order - torch.arange(n)).abs().double().mean() / n
        assert 0.2 < moved < 0.47  # a third, were it drawn


def test_coefficients_weigh_both_summands(tiny: SReTConfig) -> None:
    block, x = SReT(tiny).stages[0].blocks[0], torch.randn(2, 64, 8)
    torch.nn.init.normal_(block.weights)
    a, b, c, d = block.weights
    y = a * x + b * block.attention.out(block.attention(block.attention_norm(x), 4))
    expected = c * y + d * block.mlp.out(block.mlp(block.mlp_norm(y)))
    assert torch.allclose(block(x, 4), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (5, 2)}, r"depths=\(5, 2\): 5 is not a multiple of 2"),
        ({"heads": (3, 4)}, r"dims=\(8, 16\): 8 is not a multiple of 3 heads"),
        ({"dims": (8, 12)}, r"dims=\(8, 12\): 12 is not a multiple of 8"),
        ({"depths": (4, 2, 2)}, r"depths=\(4, 2, 2\): needs 2 entries"),
        ({"slices": (3, 2)}, "stage 1 has 8 x 8 tokens, which 3 does not divide"),
        ({"recursive_slices": (2, 5)}, r"recursive_slices=\(2, 5\): stage 2 has 4 x 4 tokens"),
        ({"image_size": (64, 100)}, r"image_size=\(64, 100\): must be multiples of 8"),
        ({"permutation": "none"}, "permutation='none': must be one of 'fixed', 'random', 'ident"),
        ({"drop_path": 1.0}, r"drop_path=1.0: must be in \[0, 1\)"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: must be positive"),
        ({"projection_ratio": 0}, "projection_ratio=0: must be positive"),
        ({"classes": -1}, "classes=-1: must be at least 0"),
        ({"shared_blocks": (0, 1)}, r"shared_blocks=\(0, 1\): must be an integer of at least 1"),
    ],
)
def test_configuration_errors_name_the_field(tiny, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny, **changes)


def test_bad_images_are_named(tiny: SReTConfig) -> None:
    model = SReT(tiny).eval()
    with pytest.raises(ValueError, match=r"\[2, 1, 64, 64\]: needs \[batch, 3, height, width\]"):
        model(torch.ones(2, 1, 64, 64))
    with pytest.raises(ValueError, match="96 x 64 pixels, the model takes 64 x 64: resize them"):
        model(torch.ones(1, 3, 96, 64))
    model = SReT(replace(tiny, dynamic_size=True)).eval()
    with pytest.raises(ValueError, match="64 x 100 pixels: both sides must be multiples of 8"):
        model(torch.ones(1, 3, 64, 100))
    with pytest.raises(ValueError, match="stage 1 has 9 x 9 tokens, which 4 does not divide"):
        model(torch.ones(1, 3, 72, 72))


def test_dynamic_size_equals_a_resized_network(tiny: SReTConfig) -> None:
    model, images = SReT(replace(tiny, dynamic_size=True)).eval(), torch.randn(1, 3, 64, 96)
    assert torch.allclose(model(images), model.resized((64, 96))(images), atol=1e-6)


def test_empty_batch_and_no_classes(tiny: SReTConfig) -> None:
    model = SReT(replace(tiny, classes=0)).eval()
    assert model(torch.ones(0, 3, 64, 64)).shape == (0, 16)
    mean = model.forward_features(IMAGES).mean((1, 2))
    assert torch.allclose(model(IMAGES), model.norm(mean))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny: SReTConfig, dtype: torch.dtype) -> None:
    model = SReT(tiny).eval()
    with torch.no_grad():
        full = model(IMAGES)
        half = model.to(dtype)(IMAGES.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - full).abs().max() < 0.1 * full.std() + 0.02


def test_checkpointing_changes_no_gradient(tiny: SReTConfig) -> None:
    model, found = SReT(replace(tiny, drop_path=0.3, token_dropout=0.1)).train(), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(5)
        model(IMAGES).square().mean().backward()
        found.append(model.stem[0][0].weight.grad.clone())
    assert torch.allclose(*found, atol=1e-7)


def test_stochastic_depth_follows_the_number_of_the_block(tiny: SReTConfig) -> None:
    model = SReT(replace(tiny, drop_path=0.6, depths=(4, 4), shared_blocks=(2, 2)))
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in model.stages]
    assert rates == [pytest.approx([0, 0.075]), pytest.approx([0.3, 0.375])]


def test_middle_token_looks_at_its_slice(tiny: SReTConfig) -> None:
    maps = SReT(tiny).eval().middle_attention(IMAGES)
    assert [tuple(x.shape) for x in maps] == [(2, 2, 8, 8), (2, 4, 4, 4)]
    for x in maps:
        assert torch.allclose(x.sum((2, 3)), torch.ones(x.shape[:2]))
        assert ((x > 0).sum((2, 3)) == x[0, 0].numel() // 2).all()
        assert (x[:, :, x.shape[2] // 2, x.shape[3] // 2] > 0).all()
