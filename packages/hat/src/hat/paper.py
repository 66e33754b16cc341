"""HAT's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor, nn

from hat import claims
from hat.model import HAT, HATConfig
from hat.official import name


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case."""
    from image_restoration_kit.golden import run_golden

    given = case.config
    model = HAT.from_official(
        case.state_dict(),
        conv_scale=given.get("conv_scale", 0.01),
        image_range=given.get("img_range", 1.0),
        drop_path=given.get("drop_path_rate", 0.1),
        shifted=given.get("img_size", 64) > given["window_size"],
    )
    return run_golden(case, model, name)


def inputs(config: HATConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default two windows."""
    side = config.positions or size or 2 * config.window
    return {"image": torch.rand(batch, config.channels, side, side)}


def settings(config: HATConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {
        "conv_scale": config.conv_scale,
        "image_range": config.image_range,
        "drop_path": config.drop_path,
        "shifted": config.shifted,
    }


def unfused(config: HATConfig) -> nn.Module:
    """The network with its attention maps in memory: the race's other side."""
    from image_restoration_kit.evidence import MapsInMemory

    return MapsInMemory(HAT(config))


def _tiny(**changes: Any) -> HATConfig:
    sizes = {"scale": 2, "dim": 16, "depths": (2, 1), "heads": (2, 4), "window": 4, "overlap": 1}
    return HATConfig(**{**sizes, "compress": 4, "squeeze": 4, "features": 16, **changes})


PARAMETERS = {
    "hat_s_x2": 9_473_471,
    "hat_s_x4": 9_621_183,
    "hat_x2": 20_624_795,
    "hat_x3": 20_809_435,
    "hat_x4": 20_772_507,
    "hat_l_x2": 40_698_863,
    "hat_l_x4": 40_846_575,
}

SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
TABLE = {
    ("hat", 4): ("HAT_SRx4.pth", "33.04 / 29.23 / 28.00 / 27.97 / 32.48 dB"),
    ("hat_l", 4): ("HAT-L_SRx4_ImageNet-pretrain.pth", "33.30 / 29.47 / 28.09 / 28.60 / 33.09 dB"),
}


def _published(variant: str, scale: int) -> Claim:
    file, figures = TABLE[variant, scale]
    return Claim(
        id=f"table-{variant.replace('_', '-')}-x{scale}",
        statement=f"{file.split('_')[0]} x{scale} on Set5, Set14, BSD100, Urban100 and Manga109.",
        source="the authors' results as the README of DRCT quotes them",
        paper_says=f"{figures} PSNR-Y",
        cost="the published weights and benchmarks, and a GPU",
        command=" && ".join(
            f"hat evaluate --hr benchmark/{name}/HR --lr benchmark/{name}/LR_bicubic/X{scale} "
            f"--checkpoint {file}"
            for name in SETS
        ),
    )


PAPER = Paper(
    slug="hat",
    title="Activating More Pixels in Image Super-Resolution Transformer",
    authors="Xiangyu Chen, Xintao Wang, Jiantao Zhou, Yu Qiao, Chao Dong",
    year=2023,
    venue="CVPR",
    arxiv="2205.04437",
    domain="super-resolution",
    summary=(
        "Puts channel attention beside window attention and lets windows of queries look at larger "
        "windows of keys, so that more of the image takes part in each restored pixel."
    ),
    official="XPixelGroup/HAT@1638a9a, Apache-2.0",
    bibtex="""@inproceedings{chen2023hat,
  title     = {Activating More Pixels in Image Super-Resolution Transformer},
  author    = {Chen, Xiangyu and Wang, Xintao and Zhou, Jiantao and Qiao, Yu and Dong, Chao},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {22367--22377},
  year      = {2023}
}""",
    models=(HAT,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(scale=3, qkv_bias=False, embed_norm=False, body_conv=False, overlap=0),
        _tiny(scale=1, channels=1, shifted=False, positions=8, image_range=255.0, conv_scale=0.5),
    ),
    parameters=PARAMETERS,
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        usual=64,
        sizes=(16, 32, 48, 64),
        variant="hat_x4",
        baseline=unfused,
        baseline_name="attention maps in memory",
    ),
    commands={
        "enlarge": "hat upscale photo.png -o enlarged --checkpoint Real_HAT_GAN_SRx4.pth",
        "evaluate": "hat evaluate --hr Set5/GTmod12 --lr Set5/LRbicx4 --checkpoint HAT_SRx4.pth",
        "prepare data": "hat prepare DF2K/HR -o data --scale 4",
        "train as published": "python -m hat.train fit --config hat_x2",
    },
    claims=(
        Claim(
            id="more-pixels",
            statement="Overlapping windows and channel attention let more pixels take part: one "
            "block's output depends on the window, on the overlapping window, on every pixel.",
            source="Sec. 3, Fig. 2",
            paper_says="HAT uses more pixels than SwinIR (attribution maps)",
            cost="10 s on a CPU core",
            measure=claims.more_pixels,
        ),
        Claim(
            id="attribution",
            statement="With its two parts a pixel is attributed to more of the image.",
            source="Sec. 3, Fig. 2",
            paper_says="a higher diffusion index than networks with window attention alone",
            cost="10 min on two CPU cores, 45 with --full; shared with the claim ablation",
            measure=claims.attribution,
            fast=False,
        ),
        Claim(
            id="printed-cost",
            statement="64 x 64 pixels take 102.4 G multiply-adds (HAT) and 54.9 G (HAT-S).",
            source="Table 1",
            paper_says="102.4 G and 54.9 G, 20.8M and 9.6M parameters",
            cost="5 s on a CPU core",
            measure=claims.printed_cost,
        ),
        Claim(
            id="learns",
            statement="A small HAT improves on bicubic enlargement within minutes of training.",
            source="of this project",
            paper_says="-",
            cost="6 min on two CPU cores, 20 with --full",
            measure=claims.learns,
            fast=False,
        ),
        Claim(
            id="ablation",
            statement="Overlapping cross-attention and channel attention each gain PSNR.",
            source="Table 2",
            paper_says="Urban100 x4: 27.81 dB with neither, 27.91 with either, 27.97 with both",
            cost="20 min on two CPU cores, 80 with --full",
            measure=claims.ablation,
            fast=False,
        ),
        _published("hat", 4),
        _published("hat_l", 4),
    ),
)
