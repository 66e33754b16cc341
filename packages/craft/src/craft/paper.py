"""CRAFT's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor, nn

from craft import claims
from craft.model import CRAFT, CRAFTConfig
from craft.official import WINDOW, name


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case."""
    from image_restoration_kit.golden import run_golden

    given = case.config
    window = given.get("split_size_0", WINDOW[0]), given.get("split_size_1", WINDOW[1])
    model = CRAFT.from_official(
        case.state_dict(), window=window, image_range=given.get("img_range", 1.0)
    )
    return run_golden(case, model, name)


def inputs(config: CRAFTConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default two of the rectangles' longer sides."""
    side = size or 2 * max(config.window)
    return {"image": torch.rand(batch, config.channels, side, side)}


def settings(config: CRAFTConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {"window": config.window, "image_range": config.image_range}


def unfused(config: CRAFTConfig) -> nn.Module:
    """The network with its attention maps in memory: the race's other side."""
    from image_restoration_kit.evidence import MapsInMemory

    return MapsInMemory(CRAFT(config))


def _tiny(**changes: Any) -> CRAFTConfig:
    sizes = {"scale": 2, "dim": 32, "depths": (2, 1), "heads": (4, 2), "window": (2, 4)}
    return CRAFTConfig(**{**sizes, **changes})


PARAMETERS = {"craft_x2": 737_756, "craft_x3": 744_251, "craft_x4": 753_344}

SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
TABLE = {
    2: "38.23 / 33.92 / 32.33 / 32.86 / 39.39 dB",
    3: "34.71 / 30.61 / 29.24 / 28.77 / 34.29 dB",
    4: "32.52 / 28.85 / 27.72 / 26.56 / 31.18 dB",
}


def _published(scale: int) -> Claim:
    return Claim(
        id=f"table-x{scale}",
        statement=f"CRAFT x{scale} on Set5, Set14, BSD100, Urban100 and Manga109.",
        source="Table 1",
        paper_says=f"{TABLE[scale]} PSNR-Y",
        cost="the published weights and benchmarks, and a GPU",
        command=" && ".join(
            f"craft evaluate --hr benchmark/{name}/HR --lr benchmark/{name}/LR_bicubic/X{scale} "
            f"--checkpoint CRAFT_MODEL_X{scale}.pth"
            for name in SETS
        ),
    )


PAPER = Paper(
    slug="craft",
    title="Feature Modulation Transformer: Cross-Refinement of Global Representation via "
    "High-Frequency Prior for Image Super-Resolution",
    authors="Ao Li, Le Zhang, Yun Liu, Ce Zhu",
    year=2023,
    venue="ICCV",
    arxiv="2308.05022",
    domain="super-resolution",
    summary=(
        "Attention in rectangles finds the global structure, a small branch of convolution and "
        "maximum filter the high frequencies, and attention between their channels lets the second "
        "refine the first; three quarters of a million weights."
    ),
    official="AVC2-UESTC/CRAFT-SR@10370eb, Apache-2.0",
    bibtex="""@inproceedings{li2023craft,
  title     = {Feature Modulation Transformer: Cross-Refinement of Global Representation via
               High-Frequency Prior for Image Super-Resolution},
  author    = {Li, Ao and Zhang, Le and Liu, Yun and Zhu, Ce},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  pages     = {12514--12524},
  year      = {2023}
}""",
    models=(CRAFT,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(scale=3, dim=64, qkv_bias=False, body_conv=False, window=(4, 2)),
        _tiny(scale=1, channels=1, depths=(1,), heads=(4,), image_range=255.0, mlp_ratio=1.5),
    ),
    parameters=PARAMETERS,
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        usual=64,
        sizes=(32, 64, 96, 128),
        variant="craft_x4",
        baseline=unfused,
        baseline_name="attention maps in memory",
    ),
    commands={
        "enlarge": "craft upscale photo.png -o enlarged --checkpoint CRAFT_MODEL_X4.pth",
        "evaluate": "craft evaluate --hr Set5/HR --lr Set5/LR_bicubic/X4 -m CRAFT_MODEL_X4.pth",
        "prepare data": "craft prepare DIV2K/HR -o data --scale 4",
        "train as published": "python -m craft.train fit --config craft_x4",
    },
    claims=(
        Claim(
            id="printed-sizes",
            statement="CRAFT has 737, 744 and 753 thousand weights at x2, x3 and x4.",
            source="Table 1",
            paper_says="737K, 744K, 753K",
            cost="1 s on a CPU core",
            measure=claims.printed_sizes,
        ),
        Claim(
            id="linear-cost",
            statement="Its cost is linear in the number of pixels.",
            source="Sec. 3.3",
            paper_says="attention in rectangles and between channels",
            cost="2 s on a CPU core",
            measure=claims.linear_cost,
        ),
        Claim(
            id="inert-positions",
            statement="The published network has no position bias: with 48 channels it is a "
            "constant, with 64 it acts.",
            source="of this project",
            paper_says="-",
            cost="2 s on a CPU core",
            measure=claims.inert_positions,
        ),
        Claim(
            id="wraps",
            statement="Shifted rectangles join opposite borders: no mask parts them.",
            source="of this project",
            paper_says="-",
            cost="1 s on a CPU core",
            measure=claims.wraps,
        ),
        Claim(
            id="learns",
            statement="A small CRAFT improves on bicubic enlargement within minutes of training.",
            source="of this project",
            paper_says="-",
            cost="2 min on two CPU cores, 10 with --full",
            measure=claims.learns,
            fast=False,
        ),
        Claim(
            id="high-frequency-branch",
            statement="The high-frequency branch gains PSNR.",
            source="Sec. 4.3",
            paper_says="its ablation",
            cost="4 min on two CPU cores, 20 with --full",
            measure=claims.high_frequency_branch,
            fast=False,
        ),
        Claim(
            id="frequencies",
            statement="Losing high frequencies costs a transformer less than a network of "
            "convolutions.",
            source="Sec. 3.1, Fig. 1",
            paper_says="transformers rely on low frequencies",
            cost="4 min on two CPU cores, 20 with --full; shared with the claims above",
            measure=claims.frequencies,
            fast=False,
        ),
        *map(_published, (2, 3, 4)),
    ),
)
