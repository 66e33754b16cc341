"""The network against its description: golden cases, and what a checkpoint tells."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, GoldenCase, golden_cases
from einops import rearrange
from rgt import RGT
from rgt.official import name
from rgt.paper import PAPER
from torch import Tensor

CASES = {case.name: case for case in golden_cases("rgt")}
TINY = CASES["x2_tiny"]
OFFSETS = "layers.0.blocks.0.attn.attns.0.rpe_biases"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    found = case.compare(PAPER.golden(case))
    assert max(found.values()) < 5e-5


def tiny(**extra: Tensor) -> dict[str, Tensor]:
    offsets = {OFFSETS: torch.tensor([[-3.0, -7.0], [3.0, 7.0]])}
    return {**TINY.state_dict(), **offsets, **extra}


def test_global_attention_is_its_description() -> None:
    state, prefix = TINY.state_dict(), "layers.0.blocks.1.attn"
    part = {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(prefix)}
    x = torch.randn(1, 32, 35, 96)
    small = x.permute(0, 3, 1, 2)
    for _ in range(2):
        small = F.conv2d(
            small, part["reduction1.weight"], part["reduction1.bias"], stride=4, groups=96
        )
    small = F.conv2d(small, part["dwconv.weight"], part["dwconv.bias"], padding=1, groups=96)
    small = F.conv2d(small, part["conv.weight"], part["conv.bias"]).flatten(2).mT
    small = F.gelu(F.layer_norm(small, (48,), part["norm_act.0.weight"], part["norm_act.0.bias"]))
    query, key, value = (
        F.linear(given, part[f"{n}.weight"], part[f"{n}.bias"])
        for n, given in (("q", x.flatten(1, 2)), ("k", small), ("v", small))
    )
    image = rearrange(value, "b (h w) d -> b d h w", h=2)
    image = image + F.conv2d(image, part["cpe.weight"], part["cpe.bias"], padding=1, groups=96)
    value = image.flatten(2).mT
    query, key, value = (z.unflatten(-1, (4, -1)).transpose(1, 2) for z in (query, key, value))
    attended = (query @ key.mT * (24 * 0.5) ** -0.5).softmax(-1) @ value
    expected = F.linear(
        attended.transpose(1, 2).flatten(2), part["proj.weight"], part["proj.bias"]
    ).view(x.shape)
    attention = RGT.from_official(tiny()).groups[0].blocks[1].attention
    with torch.no_grad():
        torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-4)
        attention.alignment = 1  # narrower queries and keys
        torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-4)


def official(model: RGT) -> dict[str, Tensor]:
    """The weights of ``model`` under the authors' names."""
    config, candidates = model.config, list(TINY.record["state_dict"])
    names = {}
    for key in candidates + [f"{key}.{n}" for key in RESIDUALS for n in WEIGHTS]:
        names[name(key)] = key
    state = {}
    for ours, value in model.state_dict().items():
        theirs = names.get(ours, ours)
        state[theirs] = value[..., None, None] if theirs.endswith("attn.conv.weight") else value
    sides = torch.tensor(config.window).float()
    return {**state, OFFSETS: torch.stack([1 - sides, sides - 1])}


RESIDUALS = ("layers.0.conv", "layers.1.conv", "conv_after_body")
WEIGHTS = [f"{n}.{part}" for n in (0, 2, 4) for part in ("weight", "bias")]


@pytest.mark.parametrize("number", range(len(PAPER.tiny)))
def test_every_size_is_read_off_the_tensors(number: int) -> None:
    model = RGT(PAPER.tiny[number]).eval()
    config = model.config
    loaded = RGT.from_official(official(model), image_range=config.image_range, drop_path=0.0)
    assert loaded.config == config
    image = PAPER.inputs(config, None, 1)["image"]
    assert loaded(image).equal(model(image))


def test_a_file_of_weights_alone_does_not_tell_its_window() -> None:
    state = TINY.state_dict()
    with pytest.raises(CheckpointError, match="does not tell its window: give window="):
        RGT.from_official(state)
    assert RGT.from_official(state, window=(8, 4)).config.window == (8, 4)
    assert RGT.from_official(tiny()).config.window == (4, 8)


def test_wrappers_prefixes_and_buffers(tmp_path: Path) -> None:
    mask = {"layers.0.blocks.2.attn.attn_mask_0": torch.zeros(1)}
    torch.save({"params": {f"module.{k}": v for k, v in tiny(**mask).items()}}, tmp_path / "n.pth")
    model = RGT.load(tmp_path / "n.pth")
    model.save_pretrained(tmp_path / "net")
    image = torch.rand(1, 3, 16, 16)
    assert RGT.load(tmp_path / "net")(image).equal(model(image))


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a RGT checkpoint: conv_first\.weight"):
        RGT.from_official({"classifier.weight": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match="one of DRCT: the package drct loads it"):
        RGT.from_official({"layers.0.swin1.norm1.weight": torch.zeros(3)})
    gap = {k: v for k, v in tiny().items() if k != "layers.0.blocks.1.gamma"}
    with pytest.raises(CheckpointError, match=r"with gaps: layers\.0\.blocks\.1\.gamma"):
        RGT.from_official(gap)
    lost = {k: v for k, v in tiny().items() if "blocks.2.norm1" not in k}
    with pytest.raises(CheckpointError, match=r"missing: groups\.0\.blocks\.2\.norm1"):
        RGT.from_official(lost)
    with pytest.raises(CheckpointError, match=r"no RGT fits: RGTConfig\.scale=5"):
        RGT.from_official(tiny(**{"upsample.0.weight": torch.zeros(64 * 25, 64, 3, 3)}))
