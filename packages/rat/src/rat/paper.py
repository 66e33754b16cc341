"""RAT's identity and claims."""

from typing import Any

import torch
from attention_core import Benchmark, Claim, Paper
from torch import Tensor, nn

from rat import claims
from rat.golden import run_golden
from rat.model import RAT, RATConfig


def inputs(config: RATConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default two windows, and maps of blocks of pixels."""
    side = size or 2 * config.reduction * config.window
    large = torch.arange(side * config.scale) // max(1, side * config.scale // 4)
    blocks = 4 * large[:, None] + large
    shifts = torch.arange(batch)[:, None, None]
    return {
        "image": torch.rand(batch, config.channels, side, side),
        "regions": (blocks + shifts) % 5,
    }


def settings(config: RATConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {"scale": config.scale, "heads": config.heads, "window": config.window}


class MaskedAttention(nn.Module):
    """The network with a table of pairs instead of sorted regions: the race's other side."""

    def __init__(self, config: RATConfig) -> None:
        super().__init__()
        self.network = RAT(config)

    def forward(self, image: Tensor, regions: Tensor) -> Tensor:
        from unittest.mock import patch

        from rat import attention, model

        with patch.object(model, "group_by_region", attention.mask_by_region):
            return self.network(image, regions)


def _tiny(**changes: Any) -> RATConfig:
    sizes = {"width": 8, "encoder_depths": (1, 1), "decoder_depths": (1, 1), "blocks": 1}
    return RATConfig(**{**sizes, "layers": 2, "heads": 4, "window": 2, **changes})


def _trained(name: str, statement: str, source: str, data: str) -> Claim:
    return Claim(
        id=name,
        statement=statement,
        source=source,
        paper_says="best PSNR and SSIM among the networks compared",
        cost=f"{data}, and GPUs",
        command=f"python -m rat.train fit --config {name.replace('-', '_')} && "
        f"python -m rat.train test --config {name.replace('-', '_')} --ckpt_path best",
    )


PAPER = Paper(
    slug="rat",
    title="Region Attention Transformer for Medical Image Restoration",
    authors="Zhiwen Yang, Haowei Chen, Ziniu Qian, Yang Zhou, Hui Zhang, Dan Zhao, Bingzheng Wei, "
    "Yan Xu",
    year=2024,
    venue="MICCAI 2024",
    arxiv="2407.09268",
    domain="medical image restoration",
    summary=(
        "Cuts an image into semantic regions (Segment Anything) and lets each pixel attend to its "
        "own region, wherever that lies; windows carry content between regions, and a loss weighs "
        "the regions that are hard."
    ),
    official="Yaziwel/Region-Attention-Transformer-for-Medical-Image-Restoration@473a379, "
    "Apache-2.0",
    bibtex="""@inproceedings{yang2024rat,
  title     = {Region Attention Transformer for Medical Image Restoration},
  author    = {Yang, Zhiwen and Chen, Haowei and Qian, Ziniu and Zhou, Yang and Zhang, Hui and
               Zhao, Dan and Wei, Bingzheng and Xu, Yan},
  booktitle = {Medical Image Computing and Computer Assisted Intervention},
  pages     = {603--613},
  year      = {2024}
}""",
    models=(RAT,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(scale=4, channels=3),
        _tiny(encoder_depths=(1,), decoder_depths=(2,), window=3, mlp_ratio=1.5),
    ),
    parameters={"rat": 15_945_025},
    golden=run_golden,
    settings=settings,
    gradient_free={
        r"^blocks\.\d+\.layers\.\d+\.(region|window)_(norm|attention)\.": (
            "both attentions are switched off until their scales have learned"
        ),
        r"^(en|de)coders\.\d+\.\d+\.(norm|expand|depthwise|channel_attention|project|ffn_\w+)\.": (
            "both branches of a NAF block are switched off until their scales have learned"
        ),
    },
    benchmark=Benchmark(
        axis="image side",
        sizes=(64, 96, 128),
        variant="rat",
        baseline=MaskedAttention,
        baseline_name="a table of pairs instead of sorted regions",
    ),
    commands={
        "restore scans": "rat restore scans -o restored -m model_best.pth",
        "see the regions": "rat segment scans -o regions",
        "score a test folder": "rat evaluate data/AAPM -m model_best.pth",
        "train as published": "python -m rat.train fit --config ct_denoising",
    },
    claims=(
        Claim(
            id="partition",
            statement="Only which pixels share a region matters: one region is global attention, a "
            "region for each pixel none at all.",
            source="its region attention",
            paper_says="attention only within regions",
            cost="1 s on a CPU core",
            measure=claims.partition_algebra,
        ),
        Claim(
            id="focal-region-loss",
            statement="The focal region loss pulls harder where a region's error is large.",
            source="its focal region loss",
            paper_says="weights hard regions",
            cost="1 s on a CPU core",
            measure=claims.focal_weights,
        ),
        Claim(
            id="regions-follow-tissue",
            statement="Regions gather pixels of like intensity that windows of a grid tear apart.",
            source="its motivation",
            paper_says="windows are fixed and ignore the content",
            cost="10 s on a CPU core",
            measure=claims.regions_follow_tissue,
        ),
        Claim(
            id="denoises",
            statement="A small RAT denoises brain slices, not behind the same network with global "
            "attention, with windows alone, or of NAF blocks.",
            source="the paper's ablations, on other data",
            paper_says="region attention beats global and window attention",
            cost="9 min on a CPU core, twice that with --full",
            measure=claims.denoises,
            fast=False,
        ),
        _trained(
            "ct-denoising",
            "RAT restores full-dose CT from quarter-dose CT better than the networks before it.",
            "the paper's comparison",
            "AAPM low-dose CT with maps of Segment Anything",
        ),
        _trained(
            "pet-synthesis",
            "RAT makes full-dose PET from low-dose PET better than the networks before it.",
            "the paper's comparison",
            "the paper's PET slices with maps of Segment Anything",
        ),
        _trained(
            "pathology-x4",
            "RAT enlarges pathology images four times better than the networks before it.",
            "the paper's comparison",
            "the paper's pathology patches with maps of Segment Anything",
        ),
    ),
)
