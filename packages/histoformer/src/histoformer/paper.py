"""Histoformer's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper, TokenConv, load_state, rename
from einops import rearrange
from torch import Tensor, nn

from histoformer import claims
from histoformer.attention import HistogramAttention
from histoformer.loss import pearson, pearson_loss
from histoformer.model import GatedFeedForward, Histoformer, HistoformerConfig, HistogramBlock
from histoformer.official import name

CHANNELS_LAST = HistogramBlock, HistogramAttention, GatedFeedForward, TokenConv
"""Parts that take and give maps of this layout."""


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case: the losses, a part of the network, or all of it on images of any size."""
    inputs = case.inputs()
    if "target" in inputs:
        return _losses(**inputs)
    module = _module(case).to(case.dtype).train(case.record["mode"] == "train")
    (x,) = (value.requires_grad_() for value in inputs.values())
    found: dict[str, Any] = {}
    for output in case.record["outputs"]:
        stage = (name(f"{output}.") or "").rstrip(".")
        if stage in dict(module.named_modules()):
            hook = _keeper(found, output)
            module.get_submodule(stage).register_forward_hook(hook)
    found["out"] = out = _whole(module, x) if isinstance(module, Histoformer) else _part(module, x)
    out.square().mean().backward()
    weights = dict(module.named_parameters())
    for output in case.record["outputs"]:
        if output.startswith("grad:"):
            key = output.removeprefix("grad:")
            found[output] = x.grad if key in inputs or key == "input" else weights[name(key)].grad  # type: ignore[index]
    return found


def _module(case: GoldenCase) -> nn.Module:
    given, state = case.config, case.state_dict()
    centred = given.get("LayerNorm_type", "WithBias") == "WithBias"
    if "output.weight" in state:
        return Histoformer.from_official(state, centred=centred)
    dim, bias = given["dim"], given.get("bias", False)
    heads: int = given.get("heads") or given.get("num_heads", 1)
    ratio = given.get("ffn_expansion_factor", 2.667)
    part: nn.Module
    if "temperature" in state:
        part = HistogramAttention(dim, heads, bias=bias)
    elif "project_in.weight" in state:
        part = GatedFeedForward(dim, int(dim * ratio), bias=bias)
    else:
        sizes = {"heads": (1,) * 4, "ffn_ratio": ratio, "bias": bias, "centred": centred}
        part = HistogramBlock(HistoformerConfig(dim=dim, **sizes), dim, heads)
    load_state(part, rename(state, name))
    return part


def _whole(model: Histoformer, image: Tensor) -> Tensor:
    from image_restoration_kit import pad_to_multiple

    return model(pad_to_multiple(image, model.multiple))[..., : image.shape[2], : image.shape[3]]


def _part(module: nn.Module, x: Tensor) -> Tensor:
    return _channels_first(module(rearrange(x, "b c h w -> b h w c")))


def _channels_first(x: Tensor) -> Tensor:
    return rearrange(x, "b h w c -> b c h w")


def _keeper(found: dict[str, Any], key: str) -> Any:
    def keep(module: nn.Module, given: Any, out: Tensor) -> None:
        last = module[-1] if isinstance(module, nn.Sequential) else module
        found[key] = _channels_first(out) if isinstance(last, CHANNELS_LAST) else out

    return keep


def _losses(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    mixed = 0.7 * target + 0.3 * output
    absolute, correlation = (mixed - target).abs().mean(), pearson_loss(mixed, target)
    return {
        "pearson_per_image": pearson(mixed, target),
        "losses": torch.stack([absolute, correlation, absolute + correlation]),
    }


def inputs(config: HistoformerConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, 8 by default: larger ones rank differently to the bit."""
    side = size or Histoformer.multiple
    return {"image": torch.rand(batch, Histoformer.channels, side, side)}


def settings(config: HistoformerConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {"centred": config.centred}


def _tiny(**changes: Any) -> HistoformerConfig:
    sizes = {"dim": 12, "depths": (1, 1, 1, 1), "refinement": 1, "heads": (1, 2, 2, 4)}
    return HistoformerConfig(**{**sizes, **changes})


SETS = {
    "Snow100K-S": ("synthetic", "37.41 dB / 0.9656"),
    "Snow100K-L": ("synthetic", "32.16 dB / 0.9261"),
    "Test1": ("input", "32.08 dB / 0.9389"),
    "RainDrop": ("input", "33.06 dB / 0.9441"),
}


def _published(data: str) -> Claim:
    folder, figures = SETS[data]
    return Claim(
        id=f"table-{data.lower()}",
        statement=f"One set of weights restores {data}.",
        source="the paper's comparison",
        paper_says=f"{figures} (PSNR and SSIM on luma; quoted second-hand)",
        cost="the published weights and test images, and a GPU",
        command=f"histoformer evaluate --hr {data}/gt --lr {data}/{folder} "
        "--checkpoint net_g_best.pth",
    )


PAPER = Paper(
    slug="histoformer",
    title="Restoring Images in Adverse Weather Conditions via Histogram Transformer",
    authors="Shangquan Sun, Wenqi Ren, Xinwei Gao, Rui Wang, Xiaochun Cao",
    year=2024,
    venue="ECCV",
    arxiv="2407.10172",
    domain="image restoration",
    summary=(
        "Sorts pixels by intensity, cuts them into bins and attends within and across the bins, so "
        "that pixels that rain, snow or haze degraded alike are restored together."
    ),
    official="sunshangquan/Histoformer@1f045f0, no licence",
    bibtex="""@inproceedings{sun2024restoring,
  title     = {Restoring Images in Adverse Weather Conditions via Histogram Transformer},
  author    = {Sun, Shangquan and Ren, Wenqi and Gao, Xinwei and Wang, Rui and Cao, Xiaochun},
  booktitle = {European Conference on Computer Vision},
  pages     = {111--129},
  year      = {2024}
}""",
    models=(Histoformer,),
    inputs=inputs,
    tiny=(_tiny(), _tiny(bias=True, centred=False, refinement=0, heads=(2, 3, 4, 6))),
    parameters={"histoformer": 16_615_100},
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        sizes=(32, 64, 96, 128),
        variant="histoformer",
        baseline=claims.with_channel_attention,
        baseline_name="channel attention, nothing sorted",
    ),
    commands={
        "restore": "histoformer restore photos -o restored --checkpoint net_g_best.pth",
        "evaluate": "histoformer evaluate --hr test/gt --lr test/input -m net_g_best.pth",
        "train as published": "python -m histoformer.train fit --config histoformer",
    },
    claims=(
        Claim(
            id="places-do-not-matter",
            statement="Histogram attention groups pixels by intensity wherever they are: shuffling "
            "pixels shuffles its output alike.",
            source="abstract",
            paper_says="bins of similar intensity over a long range instead of windows",
            cost="2 s on a CPU core",
            measure=claims.places_do_not_matter,
        ),
        Claim(
            id="linear-cost",
            statement="The cost of the network is linear in the number of pixels, sorting aside.",
            source="abstract",
            paper_says="efficient attention over the whole image",
            cost="10 s on a CPU core",
            measure=claims.linear_cost,
        ),
        Claim(
            id="printed-cost",
            statement="16.62 M parameters and 91.58 G multiply-adds at 256 x 256.",
            source="quoted for the paper",
            paper_says="16.62 M, 91.58 G",
            cost="5 s on a CPU core",
            measure=claims.printed_cost,
        ),
        Claim(
            id="correlation",
            statement="The correlation loss sees what the absolute error does not: it ignores "
            "brightness and contrast and punishes a changed order of pixels.",
            source="abstract",
            paper_says="pixel-wise losses neglect the linear association with the truth",
            cost="2 s on a CPU core",
            measure=claims.correlation,
        ),
        Claim(
            id="tiles",
            statement="Since every pixel is ranked among all others, tiles change the result.",
            source="of this project",
            paper_says="-",
            cost="5 s on a CPU core",
            measure=claims.tiles,
        ),
        Claim(
            id="learns",
            statement="A small Histoformer takes 3 dB of synthetic rain, snow, haze and drops off "
            "photographs that it was not trained on.",
            source="of this project",
            paper_says="-",
            cost="30 min on two CPU cores, 3 h with --full (3 seeds)",
            measure=claims.learns,
            fast=False,
        ),
        Claim(
            id="ablation-attention",
            statement="Histogram attention restores better than channel attention.",
            source="the paper's ablations",
            paper_says="histogram attention above channel and window attention",
            cost="60 min on two CPU cores, 6 h with --full (3 seeds; one side shared with learns)",
            measure=claims.ablation_attention,
            fast=False,
        ),
        Claim(
            id="ablation-loss",
            statement="Adding the correlation loss restores better than the absolute error alone.",
            source="the paper's ablations",
            paper_says="an improvement with the correlation loss",
            cost="60 min on two CPU cores, 6 h with --full (3 seeds; one side shared with learns)",
            measure=claims.ablation_loss,
            fast=False,
        ),
        *map(_published, SETS),
    ),
)
