"""The network against its description: golden cases, checkpoints, attention pixel by pixel."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, GoldenCase, golden_cases
from histoformer import Histoformer
from histoformer.attention import dynamic_range, histogram_attention
from histoformer.official import name
from histoformer.paper import PAPER
from torch import Tensor

CASES = {case.name: case for case in golden_cases("histoformer")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden(case: GoldenCase) -> None:
    found = case.compare(PAPER.golden(case))
    assert max(found.values()) < (1e-7 if case.dtype == torch.float64 else 1e-5)


def test_attention_is_its_description() -> None:
    """One image whose 11 pixels fill two bins but for one."""
    draw = torch.Generator().manual_seed(0)
    q1, k1, q2, k2, v = qkv = torch.randn(5, 6, 11, generator=draw, dtype=torch.float64)
    temperature = torch.tensor([0.5, 2.0], dtype=torch.float64)
    contiguous, strided = (range(6), range(6, 12)), (range(0, 12, 2), range(1, 12, 2))
    expected = torch.ones(6, 11, dtype=torch.float64)
    for q, k, bins in ((q1, k1, contiguous), (q2, k2, strided)):
        for head in range(2):
            rows = [  # the twelfth rank has no pixel; its place is behind the others
                (channel, [[*v[channel].argsort().tolist(), 11][rank] for rank in bin])
                for channel in range(3 * head, 3 * head + 3)
                for bin in bins
            ]
            query, key, value = (
                torch.stack([F.pad(x[channel], (0, 1))[pixels] for channel, pixels in rows])
                for x in (q, k, v)
            )
            query, key = (x / x.norm(dim=1, keepdim=True) for x in (query, key))
            weights = (temperature[head] * query @ key.mT).exp()
            attended = weights / (1 + weights.sum(1, keepdim=True)) @ value
            for (channel, row), results in zip(rows, attended, strict=True):
                for pixel, result in zip(row, results, strict=True):
                    if pixel < 11:
                        expected[channel, pixel] *= result
    found = histogram_attention(qkv[:, None], temperature[:, None, None])[0]
    torch.testing.assert_close(found, expected)


def test_the_dynamic_range_is_sorted_down_and_then_across() -> None:
    x = torch.rand(2, 3, 5, 7)
    found, order = dynamic_range(x)
    assert found.view_as(x).equal(x.sort(-2).values.sort(-1).values)
    assert found.equal(x.flatten(2).gather(2, order))


def official(model: Histoformer) -> dict[str, Tensor]:
    """The network's weights in the authors' layout."""
    keys = list(CASES["allweather_64"].record["state_dict"])
    keys += [key.replace("weight", "bias") for key in keys]
    own = model.state_dict()
    return {key: own[ours] for key in keys if (ours := name(key)) in own}


@pytest.mark.parametrize("number", range(len(PAPER.tiny)))
def test_every_size_is_read_off_the_tensors(number: int) -> None:
    model = Histoformer(PAPER.tiny[number]).eval()
    state = {**official(model), "skip_conv.weight": torch.zeros(1)}
    loaded = Histoformer.from_official(state, **PAPER.settings(model.config))
    assert loaded.config == model.config
    image = PAPER.inputs(model.config, None, 1)["image"]
    assert loaded(image).equal(model(image))


def test_any_feed_forward_width_is_found() -> None:
    config = PAPER.tiny[0].__class__(dim=12, depths=(1,) * 4, heads=(1,) * 4, ffn_ratio=2.0)
    loaded = Histoformer.from_official(official(Histoformer(config)))
    assert [loaded.config.hidden(dim) for dim in config.dims] == [24, 48, 96, 192]


def test_wrappers_and_folders(tmp_path: Path) -> None:
    model = Histoformer(PAPER.tiny[0])
    torch.save(
        {"params": {f"module.{k}": v for k, v in official(model).items()}}, tmp_path / "n.pth"
    )
    loaded = Histoformer.load(tmp_path / "n.pth")
    assert loaded.output.weight.equal(model.output.weight)
    loaded.save_pretrained(tmp_path / "net")
    assert Histoformer.load(tmp_path / "net").output.weight.equal(model.output.weight)


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"not a Histoformer checkpoint: patch_embed\.proj"):
        Histoformer.from_official({"classifier.weight": torch.zeros(3, 3)})
    state = official(Histoformer(PAPER.tiny[0]))
    lost = {key: value for key, value in state.items() if "decoder_level2.0.ffn" not in key}
    with pytest.raises(CheckpointError, match=r"missing: decoder\.1\.0\.ffn\.dilated"):
        Histoformer.from_official(lost)
    odd = {**state, "latent.0.attn_g.temperature": torch.ones(7, 1, 1)}
    with pytest.raises(CheckpointError, match=r"no Histoformer fits: .* 7 does not divide"):
        Histoformer.from_official(odd)


def test_norm_takes_the_mean_off_or_not() -> None:
    from histoformer.model import normalise

    x = torch.randn(2, 3, 4, 6)
    spread = (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(normalise(x), (x - x.mean(-1, keepdim=True)) / spread)
    torch.testing.assert_close(normalise(x, centred=False), x / spread)
