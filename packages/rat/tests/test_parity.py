"""The network against its description: golden cases, checkpoints, attention from scratch."""

from pathlib import Path

import pytest
import torch
from attention_core import CheckpointError, GoldenCase, golden_cases
from rat import RAT
from rat.attention import RegionAttention, group_by_region, mask_by_region
from rat.model import NAFBlock
from rat.paper import PAPER
from torch import Tensor

CASES = {case.name: case for case in golden_cases("rat")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    assert max(case.compare(PAPER.golden(case)).values()) < 2e-5


def small() -> dict[str, Tensor]:
    """The layer's case four times as wide as its NAF blocks, in the authors' layout."""
    layer = {k.removeprefix("layer."): v for k, v in CASES["basic_layer"].state_dict().items()}
    torch.manual_seed(0)
    state = {f"middle_blks.0.layers.0.{key}": value for key, value in layer.items()}
    state |= {
        "intro.weight": torch.randn(8, 1, 3, 3) / 3,
        "intro.bias": torch.randn(8),
        "ending.weight": torch.randn(1, 8, 3, 3) / 9,
        "ending.bias": torch.randn(1),
        "middle_blks.0.conv.weight": torch.randn(32, 32, 3, 3) / 17,
        "middle_blks.0.conv.bias": torch.randn(32),
    }
    for level, dim in enumerate((8, 16)):
        state[f"downs.{level}.weight"] = torch.randn(2 * dim, dim, 2, 2) / dim
        state[f"downs.{level}.bias"] = torch.randn(2 * dim)
        state[f"ups.{1 - level}.0.weight"] = torch.randn(4 * dim, 2 * dim, 1, 1) / dim
    state |= {
        "encoders.0.0.beta": torch.randn(1, 8, 1, 1),
        "encoders.0.0.gamma": torch.randn(1, 8, 1, 1),
    }
    for number, (out, inner) in enumerate(((16, 8), (16, 1), (8, 8), (16, 8), (8, 8)), 1):
        side = 3 if number == 2 else 1
        state[f"encoders.0.0.conv{number}.weight"] = torch.randn(out, inner, side, side) / 3
        state[f"encoders.0.0.conv{number}.bias"] = torch.randn(out)
    for key, shape in (("norm1", (8,)), ("norm2", (8,)), ("sca.1", (8, 8, 1, 1))):
        state[f"encoders.0.0.{key}.weight"] = torch.randn(shape)
        state[f"encoders.0.0.{key}.bias"] = torch.randn(8)
    return state


def test_sizes_are_read_off_the_tensors_with_or_without_a_prefix(tmp_path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in small().items()}, tmp_path / "net.pth")
    model = RAT.from_official(tmp_path / "net.pth", heads=4)
    config = model.config
    assert (config.width, config.dim, config.blocks, config.layers) == (8, 32, 1, 1)
    assert (config.encoder_depths, config.decoder_depths) == ((1, 0), (0, 0))
    assert (config.mlp_ratio, config.channels) == (2, 1)
    model.save_pretrained(tmp_path / "net")
    image, regions = torch.rand(1, 1, 16, 32), torch.arange(32).expand(16, 32) // 8
    assert RAT.load(tmp_path / "net")(image, regions).equal(model(image, regions))


def test_a_naf_block_is_its_description() -> None:
    state = {k.removeprefix("encoders.0.0."): v for k, v in small().items() if "encoders" in k}
    from rat.official import convert_entries

    block = NAFBlock(8)
    block.load_state_dict(convert_entries(state))
    x = torch.randn(2, 8, 5, 7)

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return torch.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        scale, shift = (state[f"{name}.{p}"].view(1, 8, 1, 1) for p in ("weight", "bias"))
        return (x - mean) / (variance + 1e-6).sqrt() * scale + shift

    y = conv(conv(norm(x, "norm1"), "conv1"), "conv2", padding=1, groups=16)
    y = y[:, :8] * y[:, 8:]
    y = conv(y * conv(y.mean((2, 3), keepdim=True), "sca.1"), "conv3")
    middle = x + y * state["beta"]
    y = conv(norm(middle, "norm2"), "conv4")
    expected = middle + conv(y[:, :8] * y[:, 8:], "conv5") * state["gamma"]
    found = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("most", [1, 3, 40, 10_000])
def test_sorted_regions_are_the_masked_table_in_both_passes(most: int) -> None:
    torch.manual_seed(most)
    attention = RegionAttention(16, 4).double()
    x = torch.randn(3, 6, 10, 16, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, most, (3, 60)).float()
    results = []
    for group in (group_by_region, mask_by_region):
        out = attention(x, group(labels))
        wanted = [x, *attention.parameters()]
        results.append([out, *torch.autograd.grad((out * out.sin()).sum(), wanted)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_padding_is_bounded() -> None:
    labels = torch.repeat_interleave(torch.arange(60), torch.arange(1, 61))[None]
    found = group_by_region(labels)
    assert len(found.order) < 1.1 * labels.numel()
    assert len(found.buckets) < 25
    assert found.order[found.back].equal(torch.arange(labels.numel()))


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a RAT checkpoint: intro\.weight"):
        RAT.from_official({"classifier.weight": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match=r"no RAT fits: RATConfig\.heads=5: must divide"):
        RAT.from_official(small(), heads=5)
    lost = {key: value for key, value in small().items() if "norm_wa." not in key}
    with pytest.raises(CheckpointError, match=r"missing: blocks\.0\.layers\.0\.window_norm"):
        RAT.from_official(lost, heads=4)
