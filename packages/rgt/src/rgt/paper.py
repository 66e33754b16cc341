"""RGT's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor, nn

from rgt import claims
from rgt.model import RGT, RGTConfig
from rgt.official import name


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case."""
    from image_restoration_kit.golden import run_golden

    given = case.config
    model = RGT.from_official(
        case.state_dict(),
        window=tuple(given["split_size"]),
        key_ratio=given.get("c_ratio", 0.5),
        image_range=given.get("img_range", 1.0),
        drop_path=given.get("drop_path_rate", 0.1),
    )
    return run_golden(case, model, name)


def inputs(config: RGTConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default 16."""
    return {"image": torch.rand(batch, config.channels, size or 16, size or 16)}


def settings(config: RGTConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    fields = ("window", "key_ratio", "image_range", "drop_path")
    return {field: getattr(config, field) for field in fields}


def unfused(config: RGTConfig) -> nn.Module:
    """The network with its attention maps in memory: the race's other side."""
    from image_restoration_kit.evidence import MapsInMemory

    return MapsInMemory(RGT(config))


def _tiny(**changes: Any) -> RGTConfig:
    # From 96 channels on the networks behind the position bias have three, and tell positions.
    sizes = {"scale": 2, "dim": 96, "depths": (3, 2), "heads": (2, 2), "window": (2, 4)}
    return RGTConfig(**{**sizes, "drop_path": 0.0, **changes})


PARAMETERS = {
    "rgt_s_x2": 10_051_055,
    "rgt_s_x3": 10_235_695,
    "rgt_s_x4": 10_198_767,
    "rgt_x2": 13_217_831,
    "rgt_x3": 13_402_471,
    "rgt_x4": 13_365_543,
}
TABLE = {
    "rgt_s": ("RGT-S", "32.98 / 29.18 / 27.98 / 27.89 / 32.38 dB"),
    "rgt": ("RGT", "33.12 / 29.23 / 28.00 / 27.98 / 32.50 dB"),
}
SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")


def _published(variant: str) -> Claim:
    title, figures = TABLE[variant]
    return Claim(
        id=f"table-{variant.replace('_', '-')}-x4",
        statement=f"{title} x4 on Set5, Set14, BSD100, Urban100 and Manga109.",
        source="Table 2",
        paper_says=f"{figures} PSNR-Y",
        cost="the published weights and benchmarks, and a GPU",
        command=" && ".join(
            f"rgt evaluate --hr benchmark/{name}/HR --lr benchmark/{name}/LR_bicubic/X4 "
            f"--checkpoint {title.replace('-', '_')}_x4.pth"
            for name in SETS
        ),
    )


PAPER = Paper(
    slug="rgt",
    title="Recursive Generalization Transformer for Image Super-Resolution",
    authors="Zheng Chen, Yulun Zhang, Jinjin Gu, Linghe Kong, Xiaokang Yang",
    year=2024,
    venue="ICLR",
    arxiv="2303.06373",
    domain="super-resolution",
    summary=(
        "Lets every pixel attend to a map that one strided convolution, applied again and again, "
        "makes of the whole image; local attention in rectangles alternates with it."
    ),
    official="zhengchen1999/RGT@01b4379, Apache-2.0",
    bibtex="""@inproceedings{chen2024recursive,
  title     = {Recursive Generalization Transformer for Image Super-Resolution},
  author    = {Chen, Zheng and Zhang, Yulun and Gu, Jinjin and Kong, Linghe and Yang, Xiaokang},
  booktitle = {International Conference on Learning Representations},
  year      = {2024}
}""",
    models=(RGT,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(scale=3, qkv_bias=False, residual="3conv", key_ratio=0.25, depths=(1, 2)),
        _tiny(scale=4, channels=1, dim=128, depths=(2,), heads=(4,), image_range=255.0),
    ),
    parameters=PARAMETERS,
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        usual=64,
        sizes=(16, 32, 48, 64),
        variant="rgt_s_x4",
        baseline=unfused,
        baseline_name="attention maps in memory",
    ),
    commands={
        "enlarge": "rgt upscale photo.png -o enlarged --checkpoint RGT_x4.pth",
        "evaluate": "rgt evaluate --hr Set5/HR --lr Set5/LR_bicubic/X4 --checkpoint RGT_x4.pth",
        "prepare data": "rgt prepare DF2K/HR -o data --scale 4",
        "train as published": "python -m rgt.train fit --config rgt_x2",
    },
    claims=(
        Claim(
            id="printed-cost",
            statement="128 x 128 pixels take 193 (RGT-S) and 251 (RGT) G multiply-adds.",
            source="Table 3",
            paper_says="193.08 G and 251.07 G, 10.20M and 13.37M parameters",
            cost="5 s on a CPU core",
            measure=claims.printed_cost,
        ),
        Claim(
            id="attention-cost",
            statement="The cost of recursive generalization attention is linear in the pixels.",
            source="Sec. 3.2",
            paper_says="linear complexity",
            cost="2 s on a CPU core",
            measure=claims.attention_cost,
        ),
        Claim(
            id="global-reach",
            statement="Two blocks let an output depend on every pixel of the image.",
            source="Sec. 1, Fig. 1",
            paper_says="global information in every second block",
            cost="5 s on a CPU core",
            measure=claims.global_reach,
        ),
        Claim(
            id="learns",
            statement="A small RGT improves on bicubic enlargement within minutes of training.",
            source="of this project",
            paper_says="-",
            cost="3 min on a CPU core, 15 with --full",
            measure=claims.learns,
            fast=False,
        ),
        Claim(
            id="ablation",
            statement="Global attention and hybrid integration each gain PSNR.",
            source="Table 1",
            paper_says="both gain",
            cost="9 min on a CPU core, 45 with --full; shared with the claim learns",
            measure=claims.ablation,
            fast=False,
        ),
        _published("rgt_s"),
        _published("rgt"),
    ),
)
