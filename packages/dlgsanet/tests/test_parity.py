"""The network against its description: golden cases, and what a checkpoint tells."""

from pathlib import Path

import pytest
import torch
from attention_core import CheckpointError, GoldenCase, golden_cases
from dlgsanet import DLGSANet
from dlgsanet.paper import PAPER
from torch import Tensor

CASES = {case.name: case for case in golden_cases("dlgsanet")}
PUBLISHED = CASES["x4_tiny_published"]
BODY = "deep_feature_extraction"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    found = case.compare(PAPER.golden(case))
    assert max(found.values()) < 5e-5


LOCAL = {
    "attention.enter": "IDynamicDWConv.conv0",
    "attention.leave": "IDynamicDWConv.conv1",
    "attention.kernels.narrow": "IDynamicDWConv.conv.conv1.0",
    "attention.kernels.around": "IDynamicDWConv.conv.conv1.1",
    "attention.kernels.widen": "IDynamicDWConv.conv.conv2.0",
    "attention.static": "IDynamicDWConv.conv",
}
GLOBAL = {
    "attention.temperature": "restormer_attn.temperature",
    "attention.qkv": "restormer_attn.qkv",
    "attention.around": "restormer_attn.qkv_dwconv",
    "attention.proj": "restormer_attn.project_out",
}
FFN = {
    "enter": "project_in", "around": "dwconv", "leave": "project_out", "fc1": "body.0",
    "fc2": "body.2",
}  # fmt: skip


def official(model: DLGSANet) -> dict[str, Tensor]:
    """The weights of ``model`` as the authors keep them."""
    c, first = model.config, int(model.config.body_norm)
    names = {
        "conv_first": "overlap_embed.0.proj",
        "embed_norm": f"{BODY}.0.body",
        "norm": f"{BODY}.{c.groups + 1}.body",
        "body_conv": f"{BODY}.{c.groups + 2 * first}",
        "before_upsample": "conv_before_upsample.0",
        "conv_last": "upsample.0" if c.head == "direct" else "conv_last",
    }
    state = {}
    for key, value in model.state_dict().items():
        prefix, _, part = key.rpartition(".")
        if not prefix.startswith("groups."):
            state[f"{names.get(prefix, prefix)}.{part}"] = value
            continue
        _, group, *rest = key.split(".")
        if rest[0] == "conv":
            count = len(model.groups[0].blocks)
            state[f"{BODY}.{int(group) + first}.body.{count}.{part}"] = value
            continue
        _, block, *rest = rest
        local = c.local and (c.activation is None or int(block) % 2 == 0)
        inner = ".".join(rest[:-1])
        if inner == "attention":
            inner, part = "restormer_attn.temperature", ""
        elif inner.startswith("norm"):
            inner = f"norm{int(inner[-1]) + (0 if local else 2)}.body"
        elif inner.startswith("ffn"):
            inner = f"{'IDynamic' if local else 'restormer'}_ffn.{FFN[rest[1]]}"
        else:
            inner = (LOCAL if local else GLOBAL)[inner]
        if value.ndim == 2:
            value = value[..., None, None]
        state[f"{BODY}.{int(group) + first}.body.{block}.{inner}.{part}".rstrip(".")] = value
    return state


@pytest.mark.parametrize("number", range(len(PAPER.tiny)))
def test_every_size_is_read_off_the_tensors(number: int) -> None:
    torch.manual_seed(0)
    model = DLGSANet(PAPER.tiny[number]).eval()
    loaded = DLGSANet.from_official(official(model), **PAPER.settings(model.config))
    assert loaded.config == model.config
    image = PAPER.inputs(model.config, None, 1)["image"]
    assert loaded(image).equal(model(image))


def test_the_published_window_depends_on_the_scale() -> None:
    assert DLGSANet.from_official(PUBLISHED.state_dict()).config.window == 48
    state = official(DLGSANet(PAPER.tiny[0]))
    assert DLGSANet.from_official(state).config.window == 96
    assert DLGSANet.from_official(state, activation="softmax").config.window == 48
    assert DLGSANet.from_official(state, window=None).config.window is None


def test_wrappers_and_prefixes(tmp_path: Path) -> None:
    model = DLGSANet(PAPER.tiny[0]).eval()
    state = {f"module.{key}": value for key, value in official(model).items()}
    other = {key: value + 1 for key, value in state.items()}
    torch.save({"params": other, "params_ema": state}, tmp_path / "net.pth")
    loaded = DLGSANet.load(tmp_path / "net.pth")
    loaded.save_pretrained(tmp_path / "net")
    assert DLGSANet.load(tmp_path / "net").conv_first.weight.equal(model.conv_first.weight)


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a DLGSANet checkpoint: overlap_embed"):
        DLGSANet.from_official({"classifier.weight": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match="one of DRCT: the package drct loads it"):
        DLGSANet.from_official({"layers.0.swin1.norm1.weight": torch.zeros(3)})
    state = official(DLGSANet(PAPER.tiny[0]))
    gap = {key: value for key, value in state.items() if f"{BODY}.1.body.0." not in key}
    with pytest.raises(CheckpointError, match="with gaps: its groups are not alike"):
        DLGSANet.from_official(gap)
    lost = {key: value for key, value in state.items() if "1.body.0.norm2" not in key}
    with pytest.raises(CheckpointError, match=r"missing: groups\.1\.blocks\.0\.norm2"):
        DLGSANet.from_official(lost)
    odd = {key: value for key, value in state.items() if key != "upsample.0.weight"}
    with pytest.raises(CheckpointError, match="no DLGSANet fits: 'upsample"):
        DLGSANet.from_official(odd)
