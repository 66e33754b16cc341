"""DLGSANet's identity and claims."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor, nn

from dlgsanet import claims
from dlgsanet.dynamic import reference
from dlgsanet.model import DLGSANet, DLGSANetConfig, LocalAttention
from dlgsanet.official import name


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case."""
    from image_restoration_kit.golden import run_golden

    given = case.config
    sparse = given.get("buildblock_type", "edge") == "sparseedge"
    window = given.get("tlc_kernel", 48) if sparse else 48
    model = DLGSANet.from_official(
        case.state_dict(),
        activation=_activation(given.get("activation", "relu")) if sparse else "softmax",
        window=window if given.get("tlc_flag", True) else None,
        image_range=given.get("img_range", 1.0),
    )
    return run_golden(case, model, partial(name, config=model.config))


def _activation(theirs: str) -> str:
    """The authors take anything that they don't know for the identity."""
    return theirs if theirs in ("relu", "gelu", "sigmoid") else "identity"


def inputs(config: DLGSANetConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side, by default 12."""
    return {"image": torch.rand(batch, config.channels, size or 12, size or 12)}


def settings(config: DLGSANetConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {
        "activation": config.activation or "relu",
        "window": config.window,
        "image_range": config.image_range,
    }


class Unfolded(nn.Module):
    """The network with the dynamic convolution by unfolding: the race's other side."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        self.network = DLGSANet(config)
        for module in self.network.modules():
            if isinstance(module, LocalAttention):
                module.filter = reference

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


def _tiny(**changes: Any) -> DLGSANetConfig:
    sizes = {"scale": 2, "dim": 12, "groups": 2, "blocks": 1, "kernel": 3, "heads": 2, "window": 9}
    return DLGSANetConfig(**{**sizes, **changes})


PARAMETERS = {
    "dlgsanet_tiny_x2": 565_710,
    "dlgsanet_tiny_x3": 572_205,
    "dlgsanet_tiny_x4": 581_298,
    "dlgsanet_light_x2": 745_188,
    "dlgsanet_light_x3": 751_683,
    "dlgsanet_light_x4": 760_776,
    "dlgsanet_x2": 4_733_724,
    "dlgsanet_x3": 4_745_889,
    "dlgsanet_x4": 4_762_920,
}
TABLE = {
    "tiny": "32.46 / 28.79 / 27.70 / 26.55 / 30.98 dB",
    "light": "32.54 / 28.84 / 27.73 / 26.66 / 31.13 dB",
}
SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")


def _published(size: str) -> Claim:
    return Claim(
        id=f"table-{size}-x4",
        statement=f"DLGSANet-{size.title()} x4 on Set5, Set14, BSD100, Urban100 and Manga109.",
        source="Table 2",
        paper_says=f"{TABLE[size]} PSNR-Y",
        cost="the published weights and benchmarks, and a GPU",
        command=" && ".join(
            f"dlgsanet evaluate --hr benchmark/{name}/HR --lr benchmark/{name}/LR_bicubic/X4 "
            f"--checkpoint DLGSANet_{size}_x4.pth"
            for name in SETS
        ),
    )


PAPER = Paper(
    slug="dlgsanet",
    title=(
        "DLGSANet: Lightweight Dynamic Local and Global Self-Attention Networks for Image "
        "Super-Resolution"
    ),
    authors="Xiang Li, Jinshan Pan, Jinhui Tang, Jiangxin Dong",
    year=2023,
    venue="ICCV",
    arxiv="2301.02031",
    domain="super-resolution",
    summary=(
        "Every position makes the kernels that it gathers its neighbours with, and channels attend "
        "to each other through ReLU instead of softmax: few weights, and cost linear in the pixels."
    ),
    official="NeonLeexiang/DLGSANet@0974b9a, Apache-2.0",
    bibtex="""@inproceedings{li2023dlgsanet,
  title     = {{DLGSANet}: Lightweight Dynamic Local and Global Self-Attention Networks for Image
               Super-Resolution},
  author    = {Li, Xiang and Pan, Jinshan and Tang, Jinhui and Dong, Jiangxin},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year      = {2023}
}""",
    models=(DLGSANet,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(scale=4, head="steps", activation="softmax", body_norm=True, gated=(False, True)),
        _tiny(
            scale=3,
            channels=1,
            activation="gelu",
            kernel_channels=4,
            window=None,
            ratios=(1.5, 2.5),
            image_range=255.0,
        ),
        _tiny(
            scale=1,
            head="same",
            local=False,
            activation="softmax",
            kernel=7,
            kernel_channels=1,
            gated=(True, False),
        ),
        _tiny(dynamic=False, activation=None, kernel_channels=1, heads=1),
    ),
    parameters=PARAMETERS,
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        usual=64,
        sizes=(32, 64, 96, 128),
        variant="dlgsanet_tiny_x4",
        baseline=Unfolded,
        baseline_name="unfolded dynamic convolution",
    ),
    commands={
        "enlarge": "dlgsanet upscale photo.png -o enlarged --checkpoint DLGSANet_x4.pth",
        "evaluate": "dlgsanet evaluate --hr Set5/HR --lr Set5/X4 --checkpoint DLGSANet_x4.pth",
        "prepare data": "dlgsanet prepare DIV2K/DIV2K_train_HR -o data --scale 4",
        "train as published": "python -m dlgsanet.train fit --config dlgsanet_tiny_x4",
    },
    claims=(
        Claim(
            id="light",
            statement="DLGSANet has fewer parameters than SwinIR.",
            source="Table 1",
            paper_says="4.76M against 11.9M parameters",
            cost="1 s on a CPU core",
            measure=claims.light,
        ),
        Claim(
            id="counted-cost",
            statement="An output of 1280 x 720 at x4 takes 32, 43 and 274 G multiply-adds.",
            source="the counter in the authors' code",
            paper_says="32.02 G, 42.51 G, 274.3 G",
            cost="5 s on a CPU core",
            measure=claims.counted_cost,
        ),
        Claim(
            id="sparse",
            statement="ReLU makes global attention sparse.",
            source="Sec. 3.3",
            paper_says="it keeps the useful self-attention values",
            cost="2 s on a CPU core",
            measure=claims.sparsity,
        ),
        Claim(
            id="operator",
            statement="The dynamic convolution runs anywhere, in time linear in the pixels.",
            source="of this project",
            paper_says="a CUDA kernel of the authors'",
            cost="5 s on a CPU core",
            measure=claims.operator,
        ),
        Claim(
            id="learns",
            statement="A small DLGSANet improves on bicubic enlargement within minutes.",
            source="of this project",
            paper_says="-",
            cost="2 min on a CPU core, 10 with --full",
            measure=claims.learns,
            fast=False,
        ),
        Claim(
            id="ablation",
            statement="Sparse attention does not lose against softmax, dynamic kernels not against "
            "static ones.",
            source="Sec. 4.3",
            paper_says="both gain",
            cost="6 min on a CPU core, 30 with --full; shared with the claim learns",
            measure=claims.ablation,
            fast=False,
        ),
        _published("tiny"),
        _published("light"),
    ),
)
