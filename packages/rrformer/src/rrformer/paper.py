"""RRFormer's identity and claims."""

from typing import Any

import torch
from attention_core import Benchmark, Claim, Paper
from torch import Tensor, nn

from rrformer import claims
from rrformer.golden import golden
from rrformer.model import RRFormer, RRFormerConfig


def inputs(config: RRFormerConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default the smallest."""
    return {"image": torch.rand(batch, 3, size or 32, size or 32)}


def settings(config: RRFormerConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {"heads": config.heads, "body": config.body, "drop_path": config.drop_path}


def unfused(config: RRFormerConfig) -> nn.Module:
    """The network with its attention maps in memory: the race's other side."""
    from image_restoration_kit.evidence import MapsInMemory

    return MapsInMemory(RRFormer(config))


def _tiny(**changes: Any) -> RRFormerConfig:
    sizes: dict[str, Any] = {"features": 16, "dim": 16, "depths": (2, 1), "heads": 2, "window": 4}
    return RRFormerConfig(
        **{**sizes, "pyramid": (4, 8), "pyramid_features": 8, "drop_path": 0.0, **changes}
    )


PAPER = Paper(
    slug="rrformer",
    title="Benchmarking Ultra-High-Definition Image Reflection Removal",
    authors="Zhenyuan Zhang, Zhenbo Song, Kaihao Zhang, Zhaoxin Fan, Jianfeng Lu",
    year=2023,
    venue="preprint",
    arxiv="2308.00265",
    domain="reflection removal",
    summary=(
        "Two data sets of 4K and 8K photographs through glass, a benchmark on them, and a network "
        "that embeds an image with features of VGG-19, lets windows attend at half size and "
        "decodes with averages over larger and larger squares."
    ),
    official=(
        "Liar-zzy/Benchmarking-Ultra-High-Definition-Single-Image-Reflection-Removal@c1de7bf, "
        "no licence"
    ),
    bibtex="""@article{zhang2023benchmarking,
  title   = {Benchmarking Ultra-High-Definition Image Reflection Removal},
  author  = {Zhang, Zhenyuan and Song, Zhenbo and Zhang, Kaihao and Fan, Zhaoxin and Lu, Jianfeng},
  journal = {arXiv:2308.00265},
  year    = {2023}
}""",
    models=(RRFormer,),
    inputs=inputs,
    tiny=(_tiny(), _tiny(hypercolumn=False, body="bypass")),
    golden=golden,
    settings=settings,
    gradient_free={r"^body\.": "as released, the body's result is thrown away (body='bypass')"},
    benchmark=Benchmark(
        axis="image side",
        usual=64,
        sizes=(32, 64, 96),
        variant="rrformer",
        baseline=unfused,
        baseline_name="attention maps in memory",
    ),
    commands={
        "join the authors' weights and VGG-19": "rrformer import errnet_latest.pt "
        "--vgg vgg19-dcbb9e9d.pth -o rrformer",
        "remove reflections": "rrformer remove photos -m rrformer -o out --tile 512",
        "score anybody's predictions": "rrformer benchmark predictions transmissions",
        "train as published": "python -m rrformer.train fit --config rrformer_uhdrr4k",
    },
    claims=(
        Claim(
            id="sizes",
            statement="The network has 20.36 million weights, 17.06 million of them in the body.",
            source="counted in the authors' code",
            paper_says="-",
            cost="5 s on a CPU core",
            measure=claims.sizes,
        ),
        Claim(
            id="inert-body",
            statement="As released, the transformer has no influence on the output.",
            source="the authors' code, against the paper",
            paper_says="the paper describes a residual around the body",
            cost="1 s on a CPU core",
            measure=claims.inert_body,
        ),
        Claim(
            id="thin-hypercolumn",
            statement="The hypercolumn of 1475 channels need never exist.",
            source="of this project",
            paper_says="-",
            cost="1 s on a CPU core",
            measure=claims.thin_hypercolumn,
        ),
        Claim(
            id="tiles",
            statement="Tiles with a halo give what the whole image gives.",
            source="of this project",
            paper_says="8K images are cut into four parts",
            cost="10 s on a CPU core",
            measure=claims.tiles,
            fast=False,
        ),
        Claim(
            id="removes",
            statement="Within minutes, a small network removes part of the reflections.",
            source="of this project",
            paper_says="-",
            cost="3 min on a CPU core, half an hour with --full",
            measure=claims.removes,
            fast=False,
        ),
        Claim(
            id="body",
            statement="With the body, as the paper describes it, more is removed than as released.",
            source="the paper against the authors' code",
            paper_says="-",
            cost="6 min on a CPU core, an hour with --full",
            measure=claims.body_helps,
            fast=False,
        ),
        Claim(
            id="uhdrr",
            statement="Best of all compared on UHDRR4K and UHDRR8K.",
            source="abstract",
            paper_says="best PSNR and SSIM (figures not readable)",
            cost="UHDRR and a GPU",
            command="python -m rrformer.train fit --config rrformer_uhdrr4k && "
            "python -m rrformer.train test --config rrformer_uhdrr4k --ckpt_path best",
        ),
    ),
)
