"""Windows and their attention against the definition, written with rolls, labels and loops."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from attention_core import (
    TokenConv,
    WindowAttention,
    WindowGrid,
    convolve,
    relative_position_bias,
    relative_position_index,
    window_attention,
)
from attention_core import windows as module
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

CPU = torch.device("cpu")


def labels(grid: WindowGrid) -> Tensor:
    """Areas of the shifted map between which attention is masked, per window."""
    (height, width), (h, w), (dy, dx) = grid.size, grid.window, grid.shift
    rows = [(0, height - h), (height - h, height - dy), (height - dy, height)]
    columns = [(0, width - w), (width - w, width - dx), (width - dx, width)]
    found = torch.zeros(height, width)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            found[top:bottom, left:right] = 3 * i + j
    return rearrange(found, "(r y) (c x) -> (r c) (y x)", y=h, x=w)


def naive(layer: WindowAttention, x: Tensor, shift: tuple[int, int]) -> Tensor:
    (height, width, dim), (h, w), heads = x.shape[1:], layer.window, layer.heads
    rolled = x.roll((-shift[0], -shift[1]), (1, 2))
    windows = rearrange(rolled, "b (r y) (c x) d -> b (r c) (y x) d", y=h, x=w)
    q, k, v = rearrange(layer.qkv(windows), "b n t (p h d) -> p b n h t d", p=3, h=heads)
    bias = torch.stack(
        [
            torch.stack(
                [
                    layer.table[(i // w - j // w + h - 1) * (2 * w - 1) + i % w - j % w + w - 1]
                    for j in range(h * w)
                ]
            )
            for i in range(h * w)
        ]
    ).permute(2, 0, 1)
    logits = q @ k.mT * (dim // heads) ** -0.5 + bias
    if shift != (0, 0):
        area = labels(WindowGrid((height, width), (h, w), shift))
        logits = logits - 100.0 * (area[:, :, None] != area[:, None, :])[:, None]
    out = layer.proj(rearrange(logits.softmax(-1) @ v, "b n h t d -> b n t (h d)"))
    merged = rearrange(out, "b (r c) (y x) d -> b (r y) (c x) d", r=height // h, y=h)
    return merged.roll(shift, (1, 2))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.data())
def test_attention_and_gradients_equal_the_definition(
    rows: int, columns: int, h: int, w: int, data: Any
) -> None:
    shift = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    batch, heads = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 3]))
    layer = WindowAttention(6, heads, (h, w), qkv_bias=data.draw(st.booleans())).double()
    torch.nn.init.normal_(layer.table)
    x = torch.randn(batch, rows * h, columns * w, 6, dtype=torch.float64, requires_grad=True)
    found, expected = layer(x, shift), naive(layer, x, shift)
    torch.testing.assert_close(found, expected)
    wanted = [x, *layer.parameters()]
    weight = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, wanted, weight),
        torch.autograd.grad(expected, wanted, weight),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, shift), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.data())
def test_merge_undoes_partition_and_windows_hold_what_the_shift_brings(
    rows: int, columns: int, h: int, w: int, data: Any
) -> None:
    shift = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    grid = WindowGrid((rows * h, columns * w), (h, w), shift)
    image = torch.randn(2, rows * h, columns * w, 3, requires_grad=True)
    windows = grid.partition(image)
    assert windows.shape == (2 * rows * columns, h * w, 3)
    assert grid.merge(windows).equal(image)
    assert sum(grid.counts) == rows * columns
    rolled = image.roll((-shift[0], -shift[1]), (1, 2))
    plain = rearrange(rolled, "b (r y) (c x) d -> (b r c) (y x) d", y=h, x=w)
    assert {tuple(t.flatten().tolist()) for t in windows} == {
        tuple(t.flatten().tolist()) for t in plain
    }
    weight = torch.randn_like(image)
    (gradient,) = torch.autograd.grad(grid.merge(windows), image, weight)
    assert gradient.equal(weight)


def test_masks_are_those_of_the_labels() -> None:
    grid = WindowGrid((12, 15), (4, 5), (2, 3))
    area = labels(grid)
    expected = -100.0 * (area[:, :, None] != area[:, None, :])
    whole, right, bottom, corner = grid.masks(CPU)
    assert whole.equal(expected[0])
    assert right.equal(expected[2])
    assert bottom.equal(expected[6])
    assert corner.equal(expected[8])
    assert grid.counts == (4, 2, 2, 1)


def test_bias_reads_the_table_at_the_index() -> None:
    table = torch.randn(5 * 7, 2)
    bias = relative_position_bias(table, (3, 4))
    assert bias.equal(table[relative_position_index((3, 4), CPU)].permute(2, 0, 1))


def test_index_is_built_once_per_window() -> None:
    first = relative_position_index((3, 3), CPU)
    assert relative_position_index((3, 3), CPU) is first
    assert WindowGrid((6, 6), (3, 3), (1, 1)).masks(CPU) is WindowGrid(
        (9, 9), (3, 3), (1, 1)
    ).masks(CPU)


@pytest.mark.parametrize("dim", [4, 16])
def test_the_backward_pass_never_holds_all_maps(monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    sizes: list[int] = []
    weights = module._weights

    def spy(*arguments: Any) -> Tensor:
        made = weights(*arguments)
        sizes.append(made.numel() * 4)
        return made

    monkeypatch.setattr(module, "_weights", spy)
    monkeypatch.setitem(module.MAPS_BYTES, "cpu", 3 * 2 * 16 * 16 * 4)
    query, key, value = (torch.randn(8, 2, 16, dim, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 16, 16, requires_grad=True)
    window_attention(query, key, value, bias).sum().backward()
    # Of one head 6 windows, then 2; a narrow one makes them in the forward pass as well.
    assert len(sizes) == (8 if dim <= module.NARROW else 4)
    assert max(sizes) <= 3 * 2 * 16 * 16 * 4


@pytest.mark.parametrize("size", [1.0, 40.0, 1e4])
def test_logits_of_any_size(size: float) -> None:
    # What a power of two can't hold is left to the softmax that takes the largest off first.
    generator = torch.Generator().manual_seed(0)
    query, key, value, grad = torch.randn(4, 3, 2, 16, 8, generator=generator)
    inputs = [(x * s).requires_grad_() for x, s in ((query, size), (key, 1), (value, 1))]
    attended = window_attention(*inputs, scale=1.0)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = (exact[0] @ exact[1].mT).softmax(-1) @ exact[2]
    assert (attended - expected).abs().max() < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(window_attention(*inputs, scale=1.0), attended)
    grads = torch.autograd.grad(attended, inputs, grad)
    for ours, theirs in zip(
        grads, torch.autograd.grad(expected, exact, grad.double()), strict=True
    ):
        assert (ours - theirs).abs().max() < 2e-4 * max(1.0, theirs.abs().max().item())


def test_training_saves_no_maps_and_stays_on_the_fused_kernel() -> None:
    query, key, value = (torch.randn(4, 2, 32, 16, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 32, 32, requires_grad=True)
    saved: list[int] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(
            lambda x: (saved.append(x.numel()), x)[1], lambda x: x
        ),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
    ):
        window_attention(query, key, value, bias)
    assert max(saved) < 4 * 2 * 32 * 32
    names = {event.key for event in profile.key_averages()}
    assert any("flash_attention" in name for name in names)
    assert not any("attention_math" in name for name in names)


@pytest.mark.parametrize("narrow", [0, 8])
def test_queries_may_be_fewer_than_keys(monkeypatch: pytest.MonkeyPatch, narrow: int) -> None:
    monkeypatch.setattr(module, "NARROW", narrow)
    query = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in "kv")
    bias = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(window_attention, (query, key, value, bias))


def test_no_bias_is_plain_attention_with_the_masks() -> None:
    grid = WindowGrid((8, 8), (4, 4), (2, 2))
    query, key, value = (torch.randn(4, 2, 16, 8) for _ in range(3))
    found = window_attention(query, key, value, None, grid)
    masks = grid.masks(CPU)[:, None]
    expected = (query @ key.mT * 8**-0.5 + masks).softmax(-1) @ value
    torch.testing.assert_close(found, expected)
    plain = window_attention(query, key, value)
    torch.testing.assert_close(plain, (query @ key.mT * 8**-0.5).softmax(-1) @ value)


@pytest.mark.parametrize("shift", [(0, 0), (2, 1)])
def test_narrow_heads_without_bias(monkeypatch: pytest.MonkeyPatch, shift: tuple[int, int]) -> None:
    monkeypatch.setitem(module.MAPS_BYTES, "cpu", 3 * 16 * 16 * 4)
    grid = WindowGrid((8, 12), (4, 4), shift)
    parts = [torch.randn(12, 2, 16, 5).double().requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *qkv: window_attention(*qkv, None, grid), parts)
    found = window_attention(*parts, None, grid)
    monkeypatch.setattr(module, "NARROW", 0)
    torch.testing.assert_close(found, window_attention(*parts, None, grid))


@pytest.mark.parametrize("shift", [(0, 0), (2, 2)])
def test_bfloat16_autocast_trains_close_to_float32(shift: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(32, 4, (4, 4))
    torch.nn.init.normal_(layer.table)
    twin, x = copy.deepcopy(layer), torch.randn(2, 8, 8, 32)
    layer(x, shift).square().mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        out = twin(x, shift)
    out.float().square().mean().backward()
    for one, other in zip(twin.parameters(), layer.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad - other.grad).abs().max() < 0.05 * other.grad.abs().max()


def test_compiles_whole_and_exports() -> None:
    """In a process of its own: the shape checks of the test suite do not compile."""
    script = """
import einops, torch
from attention_core import WindowAttention
torch.compiler.allow_in_graph(einops.rearrange)  # its parsing would take most of the time
torch.manual_seed(0)
layer = WindowAttention(12, 3, (4, 4))
x = torch.randn(2, 8, 12, 12)
compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
for shift in ((0, 0), (2, 1)):
    expected = torch.autograd.grad(layer(x, shift).square().sum(), list(layer.parameters()))
    found = torch.autograd.grad(compiled(x, shift).square().sum(), list(layer.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
program = torch.export.export(layer.eval(), (x, (2, 2)))
torch.testing.assert_close(program.module()(x, (2, 2)), layer(x, (2, 2)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_padding_the_heads_changes_nothing() -> None:
    torch.manual_seed(0)
    layer = WindowAttention(15, 3, (4, 4), alignment=8)
    twin = copy.deepcopy(layer)
    twin.alignment = 1
    x = torch.randn(1, 8, 8, 15)
    torch.testing.assert_close(layer(x, (2, 2)), twin(x, (2, 2)))


def test_messages() -> None:
    with pytest.raises(ValueError, match="9 x 8 is not a whole number of windows of 4 x 4"):
        WindowGrid((9, 8), (4, 4))
    with pytest.raises(ValueError, match="not a whole number"):
        WindowGrid((0, 8), (4, 4))
    with pytest.raises(ValueError, match=r"shift=\(4, 0\): must be at least 0 and below"):
        WindowGrid((8, 8), (4, 4), (4, 0))
    with pytest.raises(ValueError, match="dim=10 is not a multiple of heads=3"):
        WindowAttention(10, 3, (4, 4))


def test_convolutions_of_maps_whose_last_axis_is_the_channels() -> None:
    x = torch.randn(2, 4, 8, 6)
    plain = x.permute(0, 3, 1, 2)
    point, wide = TokenConv(6, 10), nn.Conv2d(6, 4, 3, padding=1)
    assert point.weight.shape == (10, 6, 1, 1)
    torch.testing.assert_close(point(x), nn.Conv2d.forward(point, plain).permute(0, 2, 3, 1))
    torch.testing.assert_close(convolve(wide, x), wide(plain).permute(0, 2, 3, 1))


@pytest.mark.parametrize("shift", [(0, 0), (2, 1), (0, 3), (3, 0)])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_few_rows_of_windows_at_a_time(
    monkeypatch: pytest.MonkeyPatch, shift: tuple[int, int], rows: int
) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(6, 2, (4, 4), alignment=1).double()
    x = torch.randn(2, 16, 8, 6, dtype=torch.float64)
    whole = attention(x, shift)
    monkeypatch.setattr(module, "PIECE_BYTES", rows * 4 * 18 * 8 * 4)
    seen: list[int] = []
    partition = WindowGrid.partition
    monkeypatch.setattr(
        WindowGrid, "partition", lambda grid, x: (seen.append(grid.size[0]), partition(grid, x))[1]
    )
    with torch.no_grad():
        torch.testing.assert_close(attention(x, shift), whole)
    assert max(seen) == 4 * rows
    assert sum(seen) == 16
