"""R²T: the fused forms, masks, lists, sizes, precision."""

import dataclasses
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrt_mil import R2T, R2TConfig
from rrt_mil.reference import literal
from rrt_mil.regions import Layout

SMALL = {"dim": 16, "heads": 4, "crmsa_heads": 2, "epeg_k": 5}
LAYOUTS = st.one_of(
    st.builds(Layout, regions=st.integers(1, 9)),
    st.builds(Layout, region_size=st.integers(1, 6)),
    st.builds(Layout, least_instances=st.integers(0, 60), least_fill=st.floats(0, 8)),
)


def layer(**changes: object) -> R2T:
    return R2T(R2TConfig(**{**SMALL, **changes})).double().eval()


def bag(instances: int, dim: int = 16) -> torch.Tensor:
    return torch.randn(instances, dim, dtype=torch.double)


@settings(max_examples=40, deadline=None)
@given(layout=LAYOUTS, instances=st.integers(1, 150))
def test_cut_and_join_keep_every_instance(layout: Layout, instances: int) -> None:
    x = torch.arange(1.0, instances + 1)[None, :, None]
    regions, exists, join = layout.cut(x)
    assert exists is None
    assert join(regions).equal(x)
    kept = regions[regions > 0]
    assert kept.sort().values.equal(x.flatten())
    count, region = layout.grid(instances)
    assert regions.shape == (1, count**2, region**2, 1)
    assert count * region >= instances**0.5


@settings(max_examples=40, deadline=None)
@given(
    layout=LAYOUTS,
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    pad=st.integers(0, 9),
)
def test_masked_bags_are_cut_as_on_their_own(layout: Layout, lengths: list[int], pad: int) -> None:
    longest = max(lengths) + pad
    mask = torch.stack([torch.randperm(longest) < n for n in lengths])
    x = torch.randn(len(lengths), longest, 1)
    regions, exists, join = layout.cut(x, mask)
    assert exists is not None
    assert join(regions)[mask].equal(x[mask])
    for row, real in enumerate(mask):
        alone, _, _ = layout.cut(x[row, real][None])
        windows, tokens = alone.shape[1:3]
        assert regions[row, :windows, :tokens].equal(alone[0])
        assert exists[row, :windows, :tokens].all()
        assert not exists[row, :windows, tokens:].any()


def test_regions_follow_the_rows_of_the_square() -> None:
    regions, _, _ = Layout(regions=2).cut(torch.arange(10.0)[None, :, None])
    # ten instances on a 4 x 4 square; six zeros at its end
    assert regions[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 0, 0], [0, 0, 0, 0]]


@settings(max_examples=10, deadline=None)
@given(
    instances=st.integers(1, 400),
    kernel=st.sampled_from((1, 3, 15, 21)),
    regions=st.sampled_from((1, 3, 8)),
    representatives=st.integers(1, 5),
)
def test_fused_forms_equal_the_literal_ones(
    instances: int, kernel: int, regions: int, representatives: int
) -> None:
    ours = layer(epeg_k=kernel, regions=regions, crmsa_k=representatives)
    theirs = layer(epeg_k=kernel, regions=regions, crmsa_k=representatives)
    theirs.load_state_dict(ours.state_dict())
    x = bag(instances)
    torch.testing.assert_close(ours(x), literal(theirs)(x), rtol=0, atol=1e-12)


@settings(max_examples=6, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3),
    changes=st.sampled_from(
        (
            {},
            {"regions": 3, "shortcut": True},
            {"epeg": "none", "region_size": 3},
            {"epeg_2d": True, "least_instances": 70, "mlp_ratio": 2.0},
        )
    ),
)
def test_a_padded_batch_equals_each_bag_alone(
    lengths: list[int], changes: dict[str, object]
) -> None:
    model = layer(**changes)
    longest = max(lengths) + 3
    mask = torch.stack([torch.randperm(longest) < n for n in lengths])
    x = torch.randn(len(lengths), longest, 16, dtype=torch.double)
    out = model(x, mask)
    for row, real in enumerate(mask):
        torch.testing.assert_close(out[row, real], model(x[row, real]), rtol=0, atol=1e-12)
    assert out[~mask].equal(x[~mask])


def test_padding_gets_no_gradient_and_gives_none() -> None:
    model = layer()
    mask = torch.tensor([[True] * 70 + [False] * 30])
    x = torch.randn(1, 100, 16, dtype=torch.double, requires_grad=True)
    model(x, mask)[mask].square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[~mask].any()
    assert x.grad[mask].any(-1).all()


def test_bags_of_a_batch_do_not_see_each_other() -> None:
    model = layer()
    x = torch.randn(3, 90, 16, dtype=torch.double)
    before = model(x)
    x[1] = torch.randn(90, 16)
    after = model(x)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=1e-14)
    assert not torch.allclose(after[1], before[1])


def test_every_form_of_input() -> None:
    model = layer()
    x = bag(100)
    out = model(x)
    torch.testing.assert_close(model(x[None])[0], out)
    picture = x.T.reshape(1, 16, 10, 10)
    torch.testing.assert_close(model(picture), out.T.reshape(1, 16, 10, 10))
    several = model([x, bag(3)])
    torch.testing.assert_close(several[0], out)
    assert several[1].shape == (3, 16)
    for kind in (torch.bool, torch.uint8, torch.float32):  # others pad with 0 and 1
        torch.testing.assert_close(model(x, torch.ones(100, dtype=kind)), out)


def test_epeg_reads_the_order_of_a_region() -> None:
    x = bag(100)
    swapped = x.clone()
    swapped[[0, 1]] = x[[1, 0]]  # two instances of one region
    for epeg, differs in (("logits", True), ("none", False)):
        model = layer(epeg=epeg, cr_msa=False)
        back = model(swapped)
        back[[0, 1]] = back[[1, 0]]
        assert (not torch.allclose(back, model(x))) == differs


def test_crmsa_is_silent_up_to_64_instances_and_finite_in_constant_regions() -> None:
    model = layer()
    without = layer(cr_msa=False)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("cross.")}
    without.load_state_dict(kept)
    x = bag(64)
    torch.testing.assert_close(model(x), without(x), rtol=0, atol=1e-14)
    assert not torch.allclose(model(bag(200)[:65]), without(bag(65)))
    constant = torch.ones(300, 16, dtype=torch.double)
    assert model(constant).isfinite().all()
    half = R2T(R2TConfig(**SMALL)).half().eval()
    assert half(constant.half()).isfinite().all()


def test_autocast_and_half_precision() -> None:
    model = R2T(R2TConfig(**SMALL)).eval()
    x = torch.randn(2, 120, 16)
    full = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), full, rtol=0, atol=0.1)
    torch.testing.assert_close(model.bfloat16()(x.bfloat16()).float(), full, rtol=0, atol=0.15)


COMPILED = """
import einops, torch
from rrt_mil import R2TConfig, R2TMIL, R2TMILConfig
torch.compiler.allow_in_graph(einops.rearrange)  # its parsing would take most of the time
encoder = R2TConfig(dim=16, heads=4, crmsa_heads=2, epeg_k=5)
model = R2TMIL(R2TMILConfig(features=16, dim=16, attention_dim=4, encoder=encoder)).eval().double()
"""
MASKED = """
mask = torch.tensor([[True] * 70 + [False] * 20, [True] * 90])
x = torch.randn(2, 90, 16, dtype=torch.double)
graph = torch.compile(model, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(graph(x, mask), model(x, mask))
"""
DYNAMIC = """
graph = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
for instances in (100, 130, 333):
    x = torch.randn(instances, 16, dtype=torch.double)
    torch.testing.assert_close(graph(x), model(x))
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
"""


@pytest.mark.parametrize(
    "script",
    [pytest.param(MASKED, id="mask"), pytest.param(DYNAMIC, id="dynamic", marks=pytest.mark.slow)],
)
def test_compiles_whole(script: str) -> None:
    # In a process of its own: shape checking is no part of the graph.
    command = [sys.executable, "-c", COMPILED + script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_exports() -> None:
    model = layer()
    x = torch.randn(1, 100, 16, dtype=torch.double)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))


def test_drop_path_drops_whole_bags_in_training_only() -> None:
    model = layer(drop_path=0.9, dropout=0.0, shortcut=False)
    x = torch.randn(40, 70, 16, dtype=torch.double)
    model.train()
    untouched = (model(x) - model.norm(x)).abs().amax((1, 2)) < 1e-9
    assert 20 < untouched.sum() < 40
    model.eval()
    assert not ((model(x) - model.norm(x)).abs().amax((1, 2)) < 1e-9).any()


def test_the_bias_of_epeg_changes_nothing() -> None:
    model = layer()
    x = bag(100)
    before = model(x)
    model.layers[0].attention.attention.bias.data += 3
    assert model(x).equal(before)
    assert literal(model)(x).allclose(before)


def test_fresh_weights_are_the_authors() -> None:
    torch.manual_seed(0)
    model = R2T(R2TConfig(dim=256))
    qkv = model.layers[0].attention.attention.qkv
    assert qkv.weight.std().item() == pytest.approx((2 / (256 + 768)) ** 0.5, rel=0.02)
    assert not qkv.bias.any()
    phi = model.cross.attention.phi.weight
    assert phi.abs().max().item() == pytest.approx(3**-0.5, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epeg_k": 4}, "R2TConfig.epeg_k=4: must be odd"),
        ({"position_k": 4}, "R2TConfig.position_k=4: must be odd"),
        ({"regions": 0}, "R2TConfig.regions=0: must be an integer of at least 1"),
        ({"region_size": 0}, "R2TConfig.region_size=0: must be an integer of at least 1"),
        ({"dim": 100}, "R2TConfig.heads=8: must divide dim=100"),
        ({"crmsa_heads": 3}, "R2TConfig.crmsa_heads=3: must divide dim=512"),
        ({"epeg": "query"}, "R2TConfig.epeg='query': must be one of 'logits', 'value'"),
        ({"position": "sincos"}, "R2TConfig.position='sincos': must be one of"),
        ({"mlp_activation": "tanh"}, "R2TConfig.mlp_activation='tanh'"),
        ({"mlp_ratio": 0.0}, "R2TConfig.mlp_ratio=0.0: must be positive"),
        ({"dropout": 1.0}, "R2TConfig.dropout=1.0: must be in [0, 1)"),
        ({"least_fill": -1.0}, "R2TConfig.least_fill=-1.0: must be 0 or more"),
    ],
)
def test_bad_configurations_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(R2TConfig(), **changes)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(1, 0, 16), None, "an empty bag"),
        (torch.zeros(0, 16), None, "an empty bag"),
        (torch.zeros(1, 5, 8), None, "this model takes features of width 16"),
        (torch.zeros(1, 16, 4, 5), None, "a picture must be square"),
        (
            torch.zeros(2, 5, 16),
            torch.ones(2, 4, dtype=torch.bool),
            "mask has shape [2, 4]: must be [2, 5]",
        ),
        (
            torch.zeros(2, 5, 16),
            torch.tensor([[True] * 5, [False] * 5]),
            "empty bags in the batch, at [1]",
        ),
        (
            [torch.zeros(5, 16)],
            torch.ones(1, 5, dtype=torch.bool),
            "a mask goes with",
        ),
    ],
)
def test_bad_bags_are_named(x: torch.Tensor, mask: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        R2T(R2TConfig(**SMALL))(x, mask)


@pytest.mark.parametrize(
    "changes", [{"epeg": "value", "epeg_k": 3}, {"position": "peg", "position_first": True}]
)
def test_ablations_without_masks_say_so(changes: dict[str, object]) -> None:
    mask = torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match="give a list of bags instead"):
        layer(**changes)(bag(9)[None], mask)
