"""The network against its description: golden cases, and the group written from scratch."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, GoldenCase, golden_cases
from drct import DRCT, DRCTConfig
from drct.paper import PAPER
from torch import Tensor

CASES = {case.name: case for case in golden_cases("drct")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    found = case.compare(PAPER.golden(case))
    assert max(found.values()) < 5e-5


def swin(
    state: dict[str, Tensor], prefix: str, x: Tensor, heads: int, w: int, shift: int
) -> Tensor:
    """A Swin layer on one map [h, w, d], window by window, from the authors' entries."""
    height, width, d = x.shape
    n = F.layer_norm(x, (d,), state[f"{prefix}.norm1.weight"], state[f"{prefix}.norm1.bias"])
    rolled = n.roll((-shift, -shift), (0, 1))
    table = state[f"{prefix}.attn.relative_position_bias_table"]
    y, c = (torch.arange(w * w) // w), (torch.arange(w * w) % w)
    index = (y[:, None] - y + w - 1) * (2 * w - 1) + c[:, None] - c + w - 1
    bias = table[index].permute(2, 0, 1)
    out = torch.empty_like(rolled)

    def label(position: Tensor, side: int) -> Tensor:
        return (position >= side - w).int() + (position >= side - shift).int()

    for top in range(0, height, w):
        for left in range(0, width, w):
            tokens = rolled[top : top + w, left : left + w].reshape(w * w, d)
            qkv = F.linear(
                tokens, state[f"{prefix}.attn.qkv.weight"], state.get(f"{prefix}.attn.qkv.bias")
            )
            q, k, v = qkv.view(w * w, 3, heads, d // heads).permute(1, 2, 0, 3)
            logits = q * (d // heads) ** -0.5 @ k.mT + bias
            if shift:
                area = 3 * label(top + y, height) + label(left + c, width)
                logits = logits - 100.0 * (area[:, None] != area)
            attended = (logits.softmax(-1) @ v).transpose(0, 1).reshape(w * w, d)
            out[top : top + w, left : left + w] = attended.view(w, w, d)
    out = F.linear(
        out, state[f"{prefix}.attn.proj.weight"], state[f"{prefix}.attn.proj.bias"]
    ).roll((shift, shift), (0, 1))
    x = x + out
    n = F.layer_norm(x, (d,), state[f"{prefix}.norm2.weight"], state[f"{prefix}.norm2.bias"])
    hidden = F.gelu(F.linear(n, state[f"{prefix}.mlp.fc1.weight"], state[f"{prefix}.mlp.fc1.bias"]))
    return x + F.linear(hidden, state[f"{prefix}.mlp.fc2.weight"], state[f"{prefix}.mlp.fc2.bias"])


def test_a_group_is_its_description() -> None:
    case = CASES["x2_tiny"]
    state, model = case.state_dict(), DRCT.from_official(case.state_dict())
    x = torch.randn(16, 24, 60)
    seen = [x]
    for k, heads in enumerate((6, 4, 2, 6, 4), 1):
        prefix = f"layers.1.swin{k}"
        out = swin(state, prefix, torch.cat(seen, -1), heads, 8, 0 if k % 2 else 4)
        weight, bias = (state[f"layers.1.adjust{k}.{part}"] for part in ("weight", "bias"))
        grown = F.linear(out, weight.flatten(1), bias)
        seen.append(grown if k == 5 else F.leaky_relu(grown, 0.2))
    expected = 0.2 * seen[-1] + x
    with torch.no_grad():
        torch.testing.assert_close(model.groups[1](x[None])[0], expected, rtol=1e-4, atol=1e-4)


def official(config: DRCTConfig, **extra: Tensor) -> tuple[dict[str, Tensor], DRCT]:
    """A checkpoint in the authors' layout, and the network that it was made from."""
    model = DRCT(config).eval()
    names = {
        "embed_norm": "patch_embed.norm",
        "body_conv": "conv_after_body",
        "before_upsample": "conv_before_upsample.0",
    }
    state = {}
    for key, value in model.state_dict().items():
        if key == "positions":
            state["absolute_pos_embed"] = value.flatten(0, 1)[None]
            continue
        for ours, theirs in names.items():
            key = f"{theirs}{key.removeprefix(ours)}" if key.startswith(f"{ours}.") else key
        parts = key.split(".")
        if parts[0] == "groups":
            _, group, kind, number, *rest = parts
            kind = "swin" if kind == "layers" else kind
            key = ".".join(["layers", group, f"{kind}{int(number) + 1}", *rest])
            key = key.replace("attention.table", "attn.relative_position_bias_table")
            key = key.replace(".attention.", ".attn.")
            value = value[..., None, None] if kind == "adjust" and value.ndim == 2 else value
        state[key] = value
    return {**state, **extra}, model


@pytest.mark.parametrize("number", range(len(PAPER.tiny)))
def test_every_size_is_read_off_the_tensors(number: int) -> None:
    state, model = official(PAPER.tiny[number])
    loaded = DRCT.from_official(state, **PAPER.settings(model.config))
    assert loaded.config == model.config
    image = PAPER.inputs(model.config, None, 1)["image"]
    assert loaded(image).equal(model(image))


def test_stored_masks_tell_whether_windows_shift_and_buffers_are_left_out() -> None:
    index = torch.zeros(16, 16, dtype=torch.int64)
    state, _ = official(PAPER.tiny[0], **{"layers.0.swin1.attn.relative_position_index": index})
    assert not DRCT.from_official(state).config.shifted
    state["layers.0.swin2.attn_mask"] = torch.zeros(16, 16, 16)
    assert DRCT.from_official(state).config.shifted
    del state["layers.0.swin2.attn_mask"], state["layers.0.swin1.attn.relative_position_index"]
    assert DRCT.from_official(state).config.shifted


def test_wrappers_and_prefixes(tmp_path: Path) -> None:
    state, model = official(PAPER.tiny[0])
    averaged = {key: value + 1 for key, value in state.items()}
    wrapped = {"params": averaged, "params_ema": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, tmp_path / "net.pth")
    loaded = DRCT.load(tmp_path / "net.pth")
    assert loaded.conv_first.weight.equal(model.conv_first.weight)
    loaded.save_pretrained(tmp_path / "net")
    assert DRCT.load(tmp_path / "net").conv_first.weight.equal(model.conv_first.weight)


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a DRCT checkpoint: conv_first\.weight"):
        DRCT.from_official({"classifier.weight": torch.zeros(3, 3)})
    state, _ = official(PAPER.tiny[0])
    gap = {key: value for key, value in state.items() if not key.startswith("layers.0.swin1.attn")}
    with pytest.raises(CheckpointError, match="not a DRCT checkpoint"):
        DRCT.from_official(gap)
    renamed = {key.replace("layers.1.", "layers.2."): value for key, value in state.items()}
    with pytest.raises(CheckpointError, match=r"with gaps: 'layers\.1\.swin1"):
        DRCT.from_official(renamed)
    lost = {key: value for key, value in state.items() if "layers.1.swin3.norm1" not in key}
    with pytest.raises(CheckpointError, match=r"missing: groups\.1\.layers\.2\.norm1"):
        DRCT.from_official(lost)
    narrow = dict(state)
    narrow["upsample.0.weight"] = torch.zeros(16 * 25, 16, 3, 3)
    with pytest.raises(CheckpointError, match=r"no DRCT fits: DRCTConfig\.scale=5"):
        DRCT.from_official(narrow)


def test_large_logits_stay_finite() -> None:
    _, model = official(PAPER.tiny[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
        out = model(torch.rand(1, 3, 8, 8))
    assert math.isfinite(out.abs().max().item())
