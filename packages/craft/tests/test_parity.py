"""The network against its description: golden cases, and its parts written from scratch."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, GoldenCase, golden_cases
from craft import CRAFT, CRAFTConfig
from craft.paper import PAPER
from torch import Tensor

CASES = {case.name: case for case in golden_cases("craft")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    found = case.compare(PAPER.golden(case))
    assert max(found.values()) < 5e-5


def test_a_fusion_block_is_its_description() -> None:
    """From the authors' entries, channel by channel."""
    case = CASES["x2_published_batch"]
    state, model = case.state_dict(), CRAFT.from_official(case.state_dict())
    entry = {
        key.removeprefix("layers.1.residual_group.hf_blocks.1."): value
        for key, value in state.items()
    }

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = (entry[f"{name}.body.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x.movedim(1, -1), (48,), weight, bias).movedim(-1, 1)

    def spread(x: Tensor, name: str) -> Tensor:
        weight = entry[f"{name}.weight"]
        return F.conv2d(x, weight, padding=1, groups=len(weight))

    low, high = torch.randn(2, 2, 48, 16, 32)
    n = norm(low, "norm1")
    query = spread(F.conv2d(high, entry["attn.q.weight"]), "attn.q_dwconv")
    key, value = spread(F.conv2d(n, entry["attn.kv.weight"]), "attn.kv_dwconv").chunk(2, 1)
    out = torch.empty_like(low)
    for head in range(6):
        own = slice(8 * head, 8 * head + 8)
        q, k = (F.normalize(z[:, own].flatten(2), dim=-1) for z in (query, key))
        weights = (q @ k.mT * entry["attn.temperature"][head]).softmax(-1)
        out[:, own] = (weights @ value[:, own].flatten(2)).unflatten(2, (16, 32))
    x = low + F.conv2d(out, entry["attn.project_out.weight"])
    hidden = F.conv2d(norm(x, "norm2"), entry["ffn.project_in.weight"])
    gate, hidden = spread(hidden, "ffn.dwconv").chunk(2, 1)
    x = x + F.conv2d(F.gelu(gate) * hidden, entry["ffn.project_out.weight"])
    block = model.groups[1].blocks[1].fusion
    with torch.no_grad():
        found = block(low.movedim(1, -1), high.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_a_high_frequency_block_is_its_description() -> None:
    model = CRAFT.from_official(CASES["x2_published_batch"].state_dict())
    block, x = model.groups[0].blocks[0].high, torch.randn(2, 48, 6, 5)
    local = F.conv2d(x[:, :24], block.conv.weight, block.conv.bias, padding=1)
    peaks = F.max_pool2d(x[:, 24:], 3, 1, 1)
    peaks = F.conv2d(peaks, block.linear.weight, block.linear.bias)
    both = torch.cat([F.gelu(local), F.gelu(peaks)], 1)
    expected = x + F.conv2d(both, block.merge.weight, block.merge.bias)
    torch.testing.assert_close(
        block(x.movedim(1, -1)).movedim(-1, 1), expected, rtol=1e-4, atol=1e-5
    )


POSITIONS = ("pos_proj", "", "pos1.0", "pos1.2", "pos2.0", "", "pos2.2", "pos3.0", "", "pos3.2")
PLACES = dict(zip((0, 1, 3, 4, 6, 7, 9), filter(None, POSITIONS), strict=True))
THEIRS = {
    r"^body_conv": "conv_after_body",
    r"^norm\.": "norm.body.",
    r"^groups\.(\d+)\.conv": r"layers.\1.conv",
    r"^groups\.(\d+)\.blocks\.(\d+)\.high\.merge": r"layers.\1.R.hfer_blocks.\2.last_fc",
    r"^groups\.(\d+)\.blocks\.(\d+)\.high\.linear": r"layers.\1.R.hfer_blocks.\2.fc",
    r"^groups\.(\d+)\.blocks\.(\d+)\.high": r"layers.\1.R.hfer_blocks.\2",
    r"^groups\.(\d+)\.blocks\.(\d+)\.fusion\.(norm\d)": r"layers.\1.R.hf_blocks.\2.\3.body",
    r"^groups\.(\d+)\.blocks\.(\d+)\.fusion": r"layers.\1.R.hf_blocks.\2",
    r"\.gate\.fc1": ".ffn.project_in",
    r"\.gate\.spread": ".ffn.dwconv",
    r"\.gate\.fc2": ".ffn.project_out",
    r"\.attention\.query\.0": ".attn.q",
    r"\.attention\.query\.1": ".attn.q_dwconv",
    r"\.attention\.key_value\.0": ".attn.kv",
    r"\.attention\.key_value\.1": ".attn.kv_dwconv",
    r"(hf_blocks\.\d+)\.attention\.proj": r"\1.attn.project_out",
    r"\.attention\.temperature": ".attn.temperature",
    r"\.attention\.local": ".get_v",
    r"\.attention\.positions\.(\d)\.(\d)": r".attns.\1.pos.P\2",
    r"\.attention\.(qkv|proj)": r".\1",
}


def official(config: CRAFTConfig) -> tuple[dict[str, Tensor], CRAFT]:
    """A checkpoint in the authors' layout, and the network that it was made from."""
    model = CRAFT(config).eval()
    state = {}
    for key, value in model.state_dict().items():
        match = re.fullmatch(r"groups\.(\d+)\.blocks\.(\d+)\.rectangles\.(\d)\.(.*)", key)
        if match:
            group, block, shifted = map(int, match.groups()[:3])
            key = f"layers.{group}.R.srwa_blocks.{2 * block + shifted}.{match[4]}"
        for ours, theirs in THEIRS.items():
            key = re.sub(ours, theirs, key)
        key = re.sub(r"\.P(\d)", lambda place: f".{PLACES[int(place[1])]}", key)
        state[key.replace(".R.", ".residual_group.")] = value
    return state, model


@pytest.mark.parametrize("number", range(len(PAPER.tiny)))
def test_every_size_is_read_off_the_tensors(number: int) -> None:
    state, model = official(PAPER.tiny[number])
    loaded = CRAFT.from_official(state, **PAPER.settings(model.config))
    assert loaded.config == model.config
    image = PAPER.inputs(model.config, None, 1)["image"]
    assert loaded(image).equal(model(image))


def test_the_layout_is_the_authors() -> None:
    state, _ = official(CRAFTConfig(scale=4))
    layout = {key: list(value.shape) for key, value in state.items()}
    assert layout == CASES["x4_published"].record["state_dict"]


def test_stored_offsets_tell_the_rectangles_apart() -> None:
    state, model = official(PAPER.tiny[1])
    y, x = torch.arange(-3.0, 4), torch.arange(-1.0, 2)
    state["biases_h"] = torch.cartesian_prod(y, x)
    state["relative_position_index_h"] = torch.zeros(8, 8, dtype=torch.int64)
    assert CRAFT.from_official(state).config == model.config
    with pytest.raises(CheckpointError, match=r"window=\(4, 16\), but the file has .*\(4, 2\)"):
        CRAFT.from_official(state, window=(4, 16))


def test_wrappers_and_prefixes(tmp_path: Path) -> None:
    state, model = official(CRAFTConfig(scale=2, depths=(1,), heads=(6,)))
    torch.save({"params": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "net.pth")
    loaded = CRAFT.load(tmp_path / "net.pth")
    assert loaded.conv_first.weight.equal(model.conv_first.weight)
    loaded.save_pretrained(tmp_path / "net")
    assert CRAFT.load(tmp_path / "net").conv_first.weight.equal(model.conv_first.weight)


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a CRAFT checkpoint: conv_first\.weight"):
        CRAFT.from_official({"classifier.weight": torch.zeros(3, 3)})
    state, _ = official(PAPER.tiny[0])
    lost = {key: value for key, value in state.items() if "layers.1.conv" not in key}
    with pytest.raises(CheckpointError, match=r"missing: groups\.1\.conv\.bias"):
        CRAFT.from_official(lost, window=(2, 4))
    odd = {key: value[:3] if key.endswith("temperature") else value for key, value in state.items()}
    with pytest.raises(CheckpointError, match=r"no CRAFT fits: CRAFTConfig\.heads=\(3, 2\)"):
        CRAFT.from_official(odd, window=(2, 4))
