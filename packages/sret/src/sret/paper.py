"""SReT's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper, replace
from einops import rearrange
from torch import Tensor

from sret import claims
from sret.distillation import distillation_loss
from sret.model import SReT, SReTConfig
from sret.official import to_official_names


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case: the classifier, or the distillation loss."""
    inputs = case.inputs()
    if "image" not in inputs:
        return _golden_loss(case, inputs)
    images, sizes = inputs["image"].requires_grad_(), case.config
    model = SReT.from_official(
        case.state_dict(),
        sliced="groups1" in sizes,
        slices=sizes.get("groups1"),
        recursive_slices=sizes.get("groups2"),
        heads=sizes["heads"],
        shared_blocks=sizes["recursive_num"],
        drop_path=sizes.get("drop_path_rate", 0.0),
    ).to(case.dtype)
    model.train(case.record.get("mode") == "train")
    drawn = sorted((k for k in inputs if k.startswith("permutation_")), key=_number)
    orders = model.orders(x := model.embed(images), [inputs[k].argsort() for k in drawn])
    outputs: dict[str, Any] = {}
    for i, stage in enumerate(model.stages):
        x = stage(model.halve(i, x), orders[i])
        outputs[f"stage{i}"] = rearrange(x, "b h w dim -> b dim h w")
    outputs["features"] = model.forward_head(x, pre_logits=True)
    outputs["logits"] = model.forward_head(x)
    outputs["logits"].square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    named = to_official_names(gradients, model.config)
    outputs |= {f"grad:{name}": grad for name, grad in named.items()}
    for name in case.record["outputs"]:
        if name.endswith("coefficient*"):
            stem = name.removeprefix("grad:").removesuffix("*")
            outputs[name] = torch.cat([named[k] for k in sorted(named) if k.startswith(stem)])
    outputs |= {"grad:input": images.grad, "grad:image": images.grad}
    statistics = to_official_names(model.state_dict(), model.config)
    return statistics | outputs  # a training case may ask for the batch norms'


def _golden_loss(case: GoldenCase, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    student, teacher = inputs["student"].requires_grad_(), inputs["teacher"]
    temperatures = case.config.get("T", [1])
    losses = [distillation_loss(student, teacher, temperature=t) for t in temperatures]
    losses[0].backward()
    return {"loss": torch.stack(losses), "grad:student": student.grad}


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def inputs(config: SReTConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of the network's size; of ``size`` pixels a side where it takes any."""
    height, width = (size, size) if size and config.dynamic_size else config.image_size
    return {"images": torch.randn(batch, config.channels, height, width)}


def settings(config: SReTConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    names = ("heads", "slices", "recursive_slices", "shared_blocks", "drop_path")
    return {name: getattr(config, name) for name in names}


def without_slices(config: SReTConfig) -> SReT:
    """The network whose tokens attend to all others: the race's other side."""
    ones = (1,) * len(config.dims)
    return SReT(replace(config, slices=ones, recursive_slices=ones))


_TINY: dict[str, Any] = {
    "image_size": (64, 64), "dims": (8, 16), "heads": (2, 4), "depths": (4, 2),
    "shared_blocks": (2, 1), "slices": (4, 2), "recursive_slices": (2, 1), "mlp_ratio": 2.0,
    "classes": 7, "drop_path": 0.0,
}  # fmt: skip


def _published(name: str, statement: str, figures: str, config: str) -> Claim:
    return Claim(
        id=name,
        statement=statement,
        source="Table of the authors' readme",
        paper_says=figures,
        cost="ImageNet-1k and 8 GPUs for days",
        command=f"python -m sret.train fit --config {config} --trainer.devices 8",
    )


PAPER = Paper(
    slug="sret",
    title="Sliced Recursive Transformer",
    authors="Zhiqiang Shen, Zechun Liu, Eric Xing",
    year=2022,
    venue="ECCV 2022",
    arxiv="2111.05297",
    domain="vision",
    summary="A vision transformer whose blocks are each applied several times with the same "
    "weights, and whose attention is sliced into groups of tokens to pay for that.",
    official="szq0214/SReT@af6db0a, MIT",
    bibtex="""@inproceedings{shen2022sliced,
  title     = {Sliced Recursive Transformer},
  author    = {Shen, Zhiqiang and Liu, Zechun and Xing, Eric},
  booktitle = {European Conference on Computer Vision},
  year      = {2022}
}""",
    models=(SReT,),
    inputs=inputs,
    tiny=(
        SReTConfig(**_TINY),
        SReTConfig(**{**_TINY, "slices": (1, 1), "recursive_slices": (1, 1)}, dynamic_size=True),
    ),
    parameters={
        "sret_t": 4_755_979,
        "sret_lt": 4_988_024,
        "sret_lt_16_14": 4_988_024,
        "sret_s": 20_899_692,
        "sret_s_wo_slice_384": 21_091_212,
    },
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        sizes=(128, 192, 224, 256, 320),
        variant="sret_t",
        changes={"dynamic_size": True},
        baseline=without_slices,
        baseline_name="without slices",
    ),
    commands={
        "classify images": "sret classify photo.jpg --checkpoint SReT_T.pth",
        "train": "python -m sret.train fit --config sret_t --data.data data/imagenet",
        "train on a CPU": "python -m sret.train fit --config sret_digits",
    },
    claims=(
        Claim(
            id="sizes",
            statement="Parameters and multiply-adds of the published sizes.",
            source="Table of the authors' readme",
            paper_says="T 4.8 M 1.1 G, LT 5.0 M 1.2 G, S 20.9 M 4.2 G",
            cost="5 s on a CPU core",
            measure=claims.sizes,
        ),
        Claim(
            id="slicing-saves",
            statement="Slicing attention takes 10 to 30 % off the multiply-adds.",
            source="Abstract",
            paper_says="10 to 30 %",
            cost="5 s on a CPU core",
            measure=claims.slicing_saves,
        ),
        Claim(
            id="recursion-is-free",
            statement="Applying a block again costs the projection's parameters and nothing else.",
            source="Sec. 3.2",
            paper_says="no additional parameters for the recursion itself",
            cost="5 s on a CPU core",
            measure=claims.recursion_is_free,
        ),
        Claim(
            id="deep-nets",
            statement="Networks of 100 and 1000 shared layers have 13 to 15 million parameters, "
            "and run and train.",
            source="Abstract",
            paper_says="100 to 1000 layers at 13 to 15 M parameters",
            cost="1 minute on a CPU core",
            measure=claims.deep_nets,
            fast=False,
        ),
        Claim(
            id="learns-digits",
            statement="A small SReT learns digits well beyond a linear classifier in 500 steps.",
            source="this project",
            paper_says="-",
            cost="2 minutes on a CPU core",
            measure=claims.learns_digits,
            fast=False,
        ),
        Claim(
            id="recursion-helps",
            statement="Applying each block twice improves on applying it once.",
            source="Abstract",
            paper_says="about 2 points on ImageNet at equal parameters",
            cost="8 minutes on a CPU core, on digits",
            measure=claims.recursion_helps,
            fast=False,
        ),
        Claim(
            id="slicing-keeps-accuracy",
            statement="Slicing loses almost no accuracy.",
            source="Table of the authors' readme",
            paper_says="76.0 against 76.1 % on ImageNet with SReT-T",
            cost="8 minutes on a CPU core, on digits",
            measure=claims.slicing_keeps_accuracy,
            fast=False,
        ),
        _published(
            "imagenet-t", "SReT-T reaches 76.0 % top-1 on ImageNet-1k.", "76.0 % top-1", "sret_t"
        ),
        _published(
            "imagenet-lt",
            "SReT-LT reaches 76.7 % top-1 on ImageNet-1k.",
            "76.7 % top-1",
            "sret_lt",
        ),
        _published(
            "imagenet-s", "SReT-S reaches 81.9 % top-1 on ImageNet-1k.", "81.9 % top-1", "sret_s"
        ),
        _published(
            "imagenet-t-distill",
            "A teacher's soft labels raise SReT-T to 77.6 % top-1.",
            "77.6 % top-1",
            "sret_t_distill",
        ),
        _published(
            "imagenet-s-384",
            "Fine-tuned at 384 x 384 without slices, SReT-S reaches 83.8 %.",
            "83.8 % top-1",
            "sret_s_wo_slice_384",
        ),
    ),
)
