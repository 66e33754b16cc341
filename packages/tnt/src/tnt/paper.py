"""TNT's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper, replace
from torch import Tensor

from tnt import claims
from tnt.model import TNT, TNTConfig
from tnt.official import to_official_names

_SETTINGS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "inner_stride": "inner_stride",
    "outer_num_heads": "outer_heads",
    "inner_num_heads": "inner_heads",
    "drop_path_rate": "drop_path",
}
"""What the golden cases call the settings of ``from_official``."""


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case of the classifier."""
    images = case.inputs()["image"].requires_grad_()
    given = {ours: case.config[name] for name, ours in _SETTINGS.items() if name in case.config}
    size = given["image_size"]
    given["image_size"] = given["source_size"] = size if isinstance(size, int) else tuple(size)
    model = TNT.from_official(case.state_dict(), **given).to(case.dtype)
    model.train(case.record.get("mode") == "train")
    outputs: dict[str, Any] = {"words": model.word_vectors(images)}
    for i, level in enumerate(model.levels(images)):
        outputs |= {f"block{i}_inner": level.words, f"block{i}_outer": level.tokens}
    tokens = model.norm(level.tokens)
    logits = model.forward_head(tokens)
    logits.square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    outputs |= {f"grad:{n}": grad for n, grad in to_official_names(gradients).items()}
    outputs |= {"grad:input": images.grad, "grad:image": images.grad}
    return outputs | {"tokens": tokens, "features": tokens[:, 0], "logits": logits}


def inputs(config: TNTConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of the network's size; of ``size`` pixels a side where it takes any."""
    height, width = (size, size) if size and config.dynamic_size else config.image_size
    return {"images": torch.randn(batch, config.channels, height, width)}


def settings(config: TNTConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    names = ("image_size", "patch_size", "inner_stride", "outer_heads", "inner_heads", "drop_path")
    told = {name: getattr(config, name) for name in names}
    return told | {"source_size": config.image_size}


def without_inner(config: TNTConfig) -> TNT:
    """The network without the inner transformer: the race's other side."""
    return TNT(replace(config, inner=False))


_TINY: dict[str, Any] = {
    "image_size": (16, 24), "patch_size": 8, "outer_dim": 12, "outer_heads": 3, "inner_dim": 6,
    "inner_heads": 2, "depth": 2, "mlp_ratio": 2, "classes": 7,
}  # fmt: skip


def _published(name: str, statement: str, source: str, figures: str, config: str) -> Claim:
    return Claim(
        id=name,
        statement=statement,
        source=source,
        paper_says=figures,
        cost="ImageNet-1k and 8 GPUs for days",
        command=f"python -m tnt.train fit --config {config} --trainer.devices 8",
    )


PAPER = Paper(
    slug="tnt",
    title="Transformer in Transformer",
    authors="Kai Han, An Xiao, Enhua Wu, Jianyuan Guo, Chunjing Xu, Yunhe Wang",
    year=2021,
    venue="NeurIPS 2021",
    arxiv="2103.00112",
    domain="vision",
    summary="A small transformer among the words inside each patch beside the usual one among "
    "patches: what the words have become is added to their patch in every block.",
    official="huawei-noah/Efficient-AI-Backbones@f90e129 (tnt_pytorch), Apache-2.0",
    bibtex="""@inproceedings{han2021transformer,
  title     = {Transformer in Transformer},
  author    = {Han, Kai and Xiao, An and Wu, Enhua and Guo, Jianyuan and Xu, Chunjing
               and Wang, Yunhe},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}""",
    models=(TNT,),
    inputs=inputs,
    tiny=(
        TNTConfig(**_TINY),
        TNTConfig(**_TINY, qkv_bias=True, squeeze_excite=True, dynamic_size=True),
        TNTConfig(**_TINY, inner=False, inner_positions=False),
    ),
    parameters={"tnt_ti": 6_076_408, "tnt_s": 23_768_584, "tnt_b": 65_428_680},
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        sizes=(64, 96, 128, 160, 224),
        variant="tnt_ti",
        changes={"dynamic_size": True},
        baseline=without_inner,
        baseline_name="without the inner transformer",
    ),
    commands={
        "classify images": "tnt classify photo.jpg --checkpoint tnt_s_81.5.pth.tar",
        "train": "python -m tnt.train fit --config tnt_s --data.data data/imagenet",
        "train on a CPU": "python -m tnt.train fit --config tnt_digits",
    },
    claims=(
        Claim(
            id="sizes",
            statement="Parameters and multiply-adds of the three sizes.",
            source="Table 1",
            paper_says="Ti 6.1 M 1.4 G, S 23.8 M 5.2 G, B 65.6 M 14.1 G",
            cost="5 s on a CPU core",
            measure=claims.sizes,
        ),
        Claim(
            id="inner-is-cheap",
            statement="The inner transformer adds little to what a block costs.",
            source="Sec. 2.3",
            paper_says="about 1.08 times the parameters and 1.14 times the FLOPs of a ViT block",
            cost="5 s on a CPU core",
            measure=claims.inner_is_cheap,
        ),
        Claim(
            id="timm-agreement",
            statement="timm's own TNT-S gives the same logits with the same weights.",
            source="this project",
            paper_says="-",
            cost="10 s on a CPU core",
            measure=claims.timm_agreement,
        ),
        Claim(
            id="learns-digits",
            statement="A small TNT learns digits well beyond a linear classifier.",
            source="this project",
            paper_says="-",
            cost="2 minutes on a CPU core",
            measure=claims.learns_digits,
            fast=False,
        ),
        Claim(
            id="inner-helps",
            statement="The inner transformer improves on the same network without it.",
            source="Table 3",
            paper_says="81.5 (TNT-S) against 79.8 % (DeiT-S) on ImageNet",
            cost="10 minutes on a CPU core, on digits",
            measure=claims.inner_helps,
            fast=False,
        ),
        _published(
            "imagenet-ti",
            "TNT-Ti reaches 73.9 % top-1 on ImageNet-1k.",
            "Table 3",
            "73.9 % top-1",
            "tnt_ti",
        ),
        _published(
            "imagenet-s",
            "TNT-S reaches 81.5 % top-1 on ImageNet-1k.",
            "Table 3",
            "81.5 % top-1",
            "tnt_s",
        ),
        _published(
            "imagenet-b",
            "TNT-B reaches 82.9 % top-1 on ImageNet-1k.",
            "Table 3",
            "82.9 % top-1",
            "tnt_b",
        ),
        _published(
            "imagenet-384",
            "At 384 x 384, TNT-S and TNT-B reach 83.1 and 83.9 % top-1.",
            "Table 4",
            "83.1 / 83.9 % top-1",
            "tnt_s_384",
        ),
    ),
)
