"""The network against its description: golden cases, and its parts written from scratch."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, GoldenCase, golden_cases
from hat import HAT, HATConfig
from hat.overlap import OverlappingCrossAttention
from hat.paper import PAPER
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

CASES = {case.name: case for case in golden_cases("hat")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    found = case.compare(PAPER.golden(case))
    assert max(found.values()) < 5e-5


def index(window: int, keys: int) -> Tensor:
    """The authors' row of the table for each query and key, negative ones included."""
    y, x = torch.arange(window * window) // window, torch.arange(window * window) % window
    v, u = torch.arange(keys * keys) // keys, torch.arange(keys * keys) % keys
    down, right = (k - q[:, None] + window - keys + 1 for k, q in ((v, y), (u, x)))
    return down * (window + keys - 1) + right


def test_negative_offsets_count_from_the_end_of_the_table() -> None:
    attention = OverlappingCrossAttention(12, 3, 16, 4)
    rows = index(16, 24)
    assert (rows.min(), rows.max(), len(attention.table)) == (-880, 640, 1521)
    assert attention.bias().equal(attention.table[rows].permute(2, 0, 1))
    plain = attention.table.roll(880, 0)
    assert attention.bias().equal(plain[rows + 880].permute(2, 0, 1))


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 4), st.integers(0, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_overlapping_windows_one_by_one(
    window: int, overlap: int, rows: int, columns: int, qkv_bias: bool
) -> None:
    torch.manual_seed(0)
    heads, dim, keys = 2, 6, window + 2 * overlap
    attention = OverlappingCrossAttention(dim, heads, window, overlap, qkv_bias=qkv_bias).double()
    image = torch.randn(2, rows * window, columns * window, dim, dtype=torch.float64)
    image.requires_grad_()
    q, k, v = attention.qkv(image).chunk(3, -1)
    k, v = (F.pad(part, (0, 0) + (overlap,) * 4) for part in (k, v))
    bias = attention.table[index(window, keys)].permute(2, 0, 1)
    expected = torch.empty_like(image)
    for y in range(0, image.shape[1], window):
        for x in range(0, image.shape[2], window):
            some = slice(y, y + window), slice(x, x + window)
            more = slice(y, y + keys), slice(x, x + keys)
            query = q[:, *some].reshape(2, -1, heads, 3).transpose(1, 2)
            key, value = (z[:, *more].reshape(2, -1, heads, 3).transpose(1, 2) for z in (k, v))
            weights = (query @ key.mT * 3**-0.5 + bias).softmax(-1)
            out = (weights @ value).transpose(1, 2).reshape(2, window, window, dim)
            expected[:, *some] = attention.proj(out)
    found = attention(image)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    wanted = [image, attention.table, attention.qkv.weight]
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_a_block_is_its_description() -> None:
    """The convolutions see the normalised map unshifted; their gate is the whole map's mean."""
    model = HAT.from_official(CASES["x2_tiny"].state_dict())
    block = model.groups[1].blocks[1]
    x = torch.randn(2, 16, 24, 60)
    n = block.norm1(x)
    y = block.conv.expand(F.gelu(block.conv.compress(n.permute(0, 3, 1, 2))))
    gate = block.conv.excite(block.conv.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
    z = x + block.attention(n, (4, 4)) + 0.01 * (y * gate).permute(0, 2, 3, 1)
    expected = z + block.mlp(block.norm2(z))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


THEIRS = {
    r"^embed_norm": "patch_embed.norm",
    r"^body_conv": "conv_after_body",
    r"^before_upsample": "conv_before_upsample.0",
    r"^positions$": "absolute_pos_embed",
    r"^groups\.(\d+)\.blocks": r"layers.\1.residual_group.blocks",
    r"^groups\.(\d+)\.overlap\.attention": r"layers.\1.residual_group.overlap_attn",
    r"^groups\.(\d+)\.overlap": r"layers.\1.residual_group.overlap_attn",
    r"^groups\.(\d+)": r"layers.\1",
    r"\.attention\.": ".attn.",
    r"\.table$": ".relative_position_bias_table",
    r"\.conv\.compress": ".conv_block.cab.0",
    r"\.conv\.expand": ".conv_block.cab.2",
    r"\.conv\.squeeze": ".conv_block.cab.3.attention.1",
    r"\.conv\.excite": ".conv_block.cab.3.attention.3",
}


def official(config: HATConfig) -> tuple[dict[str, Tensor], HAT]:
    """A checkpoint in the authors' layout, and the network that it was made from."""
    model = HAT(config).eval()
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in THEIRS.items():
            key = re.sub(ours, theirs, key)
        state[key] = value.flatten(0, 1)[None] if key == "absolute_pos_embed" else value
    return state, model


@pytest.mark.parametrize("number", range(len(PAPER.tiny)))
def test_every_size_is_read_off_the_tensors(number: int) -> None:
    state, model = official(PAPER.tiny[number])
    loaded = HAT.from_official(state, **PAPER.settings(model.config))
    assert loaded.config == model.config
    image = PAPER.inputs(model.config, None, 1)["image"]
    assert loaded(image).equal(model(image))


def test_wrappers_prefixes_and_buffers(tmp_path: Path) -> None:
    state, model = official(PAPER.tiny[0])
    averaged = {key: value + 1 for key, value in state.items()}
    state["relative_position_index_OCA"] = torch.zeros(16, 36, dtype=torch.int64)
    wrapped = {"params": averaged, "params-ema": {f"netG.{k}": v for k, v in state.items()}}
    torch.save(wrapped, tmp_path / "net.pth")
    loaded = HAT.load(tmp_path / "net.pth")
    assert loaded.conv_first.weight.equal(model.conv_first.weight)
    loaded.save_pretrained(tmp_path / "net")
    assert HAT.load(tmp_path / "net").conv_first.weight.equal(model.conv_first.weight)


def test_ratios_that_rounding_would_lose() -> None:
    config = replace(PAPER.tiny[0], dim=46, heads=(2, 2), squeeze=7, mlp_ratio=21.4 / 46)
    state, model = official(config)
    loaded = HAT.from_official(state)
    assert loaded.config.hidden == config.hidden == 21
    assert loaded(torch.ones(1, 3, 8, 8)).equal(model(torch.ones(1, 3, 8, 8)))


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a HAT checkpoint: conv_first\.weight"):
        HAT.from_official({"classifier.weight": torch.zeros(3, 3)})
    state, _ = official(PAPER.tiny[0])
    renamed = {key.replace("layers.1.", "layers.2."): value for key, value in state.items()}
    with pytest.raises(CheckpointError, match=r"with gaps: 'layers\.1\.residual_group"):
        HAT.from_official(renamed)
    lost = {key: value for key, value in state.items() if "layers.1.conv" not in key}
    with pytest.raises(CheckpointError, match=r"missing: groups\.1\.conv\.bias"):
        HAT.from_official(lost)
    table = "layers.0.residual_group.overlap_attn.relative_position_bias_table"
    odd = {**state, table: torch.zeros(10 * 10, 2)}
    with pytest.raises(CheckpointError, match="windows of 7 can't overlap evenly those of 4"):
        HAT.from_official(odd)
    narrow = {**state, "upsample.0.weight": torch.zeros(16 * 25, 16, 3, 3)}
    with pytest.raises(CheckpointError, match=r"no HAT fits: HATConfig\.scale=5"):
        HAT.from_official(narrow)
