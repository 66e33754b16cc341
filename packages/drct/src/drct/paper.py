"""DRCT's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor, nn

from drct import claims
from drct.model import DRCT, DRCTConfig
from drct.official import name


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case."""
    from image_restoration_kit.golden import run_golden

    given = case.config
    model = DRCT.from_official(
        case.state_dict(),
        image_range=given.get("img_range", 1.0),
        drop_path=given.get("drop_path_rate", 0.1),
        shifted=given["img_size"] > given["window_size"],
    )
    return run_golden(case, model, name)


def inputs(config: DRCTConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default two windows."""
    side = config.positions or size or 2 * config.window
    return {"image": torch.rand(batch, config.channels, side, side)}


def settings(config: DRCTConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {
        "image_range": config.image_range,
        "drop_path": config.drop_path,
        "shifted": config.shifted,
    }


def unfused(config: DRCTConfig) -> nn.Module:
    """The network with its attention maps in memory: the race's other side."""
    from image_restoration_kit.evidence import MapsInMemory

    return MapsInMemory(DRCT(config))


def _tiny(**changes: Any) -> DRCTConfig:
    sizes = {"scale": 2, "dim": 16, "heads": (2, 2), "window": 4, "growth": 4, "features": 16}
    return DRCTConfig(**{**sizes, **changes})


PARAMETERS = {
    "drct_x2": 13_991_867,
    "drct_x3": 14_176_507,
    "drct_x4": 14_139_579,
    "drct_l_x2": 27_433_007,
    "drct_l_x4": 27_580_719,
}

TABLE = {
    "drct": "33.11 / 29.35 / 28.18 / 28.06 / 32.59 dB",
    "drct_l": "33.37 / 29.54 / 28.16 / 28.70 / 33.14 dB",
}
SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")


def _published(variant: str, file: str) -> Claim:
    return Claim(
        id=f"table-{variant.replace('_', '-')}-x4",
        statement=f"{file.split('_')[0]} x4 on Set5, Set14, BSD100, Urban100 and Manga109.",
        source="README of the authors' code",
        paper_says=f"{TABLE[variant]} PSNR-Y",
        cost="the published weights and benchmarks, and a GPU",
        command=" && ".join(
            f"drct evaluate --hr benchmark/{name}/HR --lr benchmark/{name}/LR_bicubic/X4 "
            f"--checkpoint {file}"
            for name in SETS
        ),
    )


PAPER = Paper(
    slug="drct",
    title="DRCT: Saving Image Super-resolution away from Information Bottleneck",
    authors="Chih-Chung Hsu, Chia-Ming Lee, Yi-Shiuan Chou",
    year=2024,
    venue="CVPR 2024 Workshops (NTIRE)",
    arxiv="2404.00722",
    domain="super-resolution",
    summary=(
        "Connects the window-attention layers of a group densely, so that late layers still see "
        "what early ones found; with fewer weights than HAT it enlarges images at least as well."
    ),
    official="ming053l/DRCT@c0a8b51, MIT",
    bibtex="""@inproceedings{hsu2024drct,
  title     = {DRCT: Saving Image Super-Resolution away from Information Bottleneck},
  author    = {Hsu, Chih-Chung and Lee, Chia-Ming and Chou, Yi-Shiuan},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops},
  pages     = {6133--6142},
  year      = {2024}
}""",
    models=(DRCT,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(scale=3, qkv_bias=False, embed_norm=False, body_conv=False),
        _tiny(scale=4, channels=1, shifted=False, heads=(2,), positions=8, image_range=255.0),
    ),
    parameters=PARAMETERS,
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        usual=64,
        sizes=(16, 32, 48, 64),
        variant="drct_x4",
        baseline=unfused,
        baseline_name="attention maps in memory",
    ),
    commands={
        "enlarge": "drct upscale photo.png -o enlarged --checkpoint DRCT-L_X4.pth",
        "evaluate": "drct evaluate --hr Set5/GTmod12 --lr Set5/LRbicx4 --checkpoint DRCT_X4.pth",
        "prepare data": "drct prepare DF2K/HR -o data --scale 4",
        "train as published": "python -m drct.train fit --config drct_x4",
    },
    claims=(
        Claim(
            id="smaller-than-hat",
            statement="DRCT needs two thirds of HAT's weights and fewer operations.",
            source="Table 1",
            paper_says="14.13M against 20.77M parameters (68 %)",
            cost="5 s on a CPU core",
            measure=claims.smaller_than_hat,
        ),
        Claim(
            id="printed-cost",
            statement="64 x 64 pixels take 5.92 (DRCT) and 9.20 (DRCT-L) G multiply-adds.",
            source="README of the authors' code",
            paper_says="5.92 G and 9.20 G",
            cost="10 s on a CPU core",
            measure=claims.printed_cost,
        ),
        Claim(
            id="bicubic-baseline",
            statement="Bicubic resizing, PSNR and SSIM are those that the field reports with.",
            source="protocol of the evaluation",
            paper_says="-",
            cost="5 s on a CPU core",
            measure=claims.bicubic_baseline,
        ),
        Claim(
            id="tiles",
            statement="Tiles whose halo covers the network's reach give the whole image's result.",
            source="of this project",
            paper_says="-",
            cost="10 s on a CPU core",
            measure=claims.tiles,
        ),
        Claim(
            id="learns",
            statement="A small DRCT improves on bicubic enlargement within minutes of training.",
            source="of this project",
            paper_says="-",
            cost="5 min on two CPU cores, 20 with --full",
            measure=claims.learns,
            fast=False,
        ),
        Claim(
            id="dense-connections",
            statement="Dense connections do not lose against a plain chain of equal widths.",
            source="Sec. 3, Fig. 2",
            paper_says="they keep the feature intensity up and gain PSNR",
            cost="10 min on two CPU cores, 40 with --full",
            measure=claims.dense_against_chain,
            fast=False,
        ),
        _published("drct", "DRCT_SRx4.pth"),
        _published("drct_l", "DRCT-L_X4.pth"),
    ),
)
