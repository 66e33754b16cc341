"""ResFormer's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor

from resformer import claims
from resformer.consistency import multi_size_losses
from resformer.model import ResFormer, ResFormerConfig
from resformer.official import to_official_names


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case: the network at several sizes, or the loss over them."""
    inputs = case.inputs()
    images = {name.removeprefix("image_"): x for name, x in inputs.items() if "image" in name}
    images = {size: x.requires_grad_() for size, x in images.items()}
    model = ResFormer.from_official(
        case.state_dict(),
        norm_eps=case.config.get("layer_norm_eps", 1e-6),
        drop_path=case.config.get("drop_path_rate", 0.0),
    ).to(case.dtype)
    model.train(case.record.get("mode") == "train")
    outputs: dict[str, Any]
    if "target_logits" in inputs:
        outputs = _golden_losses(case.config, model, images, inputs["target_logits"].softmax(-1))
    else:
        outputs = _golden_sizes(model, images)
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad  # none: it can't change the logits
        for name, p in model.named_parameters()
    }
    outputs |= {f"grad:{name}": grad for name, grad in to_official_names(gradients).items()}
    return outputs | {"grad:input": next(iter(images.values())).grad}


def _golden_sizes(model: ResFormer, images: Mapping[str, Tensor]) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for size, x in images.items():
        tokens = model.forward_features(x)
        outputs |= {
            f"embedded_{size}": model.embed(x)[0],
            f"class_token_{size}": tokens[:, 0],
            f"patch_mean_{size}": tokens[:, 1:].mean(1),
            f"logits_{size}": model(x),
        }
    outputs[f"logits_{next(iter(images))}"].square().mean().backward()
    return outputs


def _golden_losses(
    config: Mapping[str, Any], model: ResFormer, images: Mapping[str, Tensor], targets: Tensor
) -> dict[str, Any]:
    kind = config.get("distillation_type", "none")
    losses = multi_size_losses(
        [model.view(x, config.get("distillation_target") or "cls") for x in images.values()],
        targets,
        consistency=None if kind == "none" else kind,
        weight=config.get("distillation_alpha", 1.0),
    )
    losses.mean().backward()
    return {"losses": torch.cat([losses, losses.mean()[None]])}


def inputs(config: ResFormerConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of about ``size`` pixels a side (four patches by default)."""
    side = max(1, (size or 4 * config.patch_size) // config.patch_size) * config.patch_size
    return {"images": torch.randn(batch, config.channels, side, side)}


def settings(config: ResFormerConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {"norm_eps": config.norm_eps, "drop_path": config.drop_path}


_TINY: dict[str, Any] = {
    "patch_size": 4, "dim": 24, "depth": 2, "heads": 3, "mlp_ratio": 2, "classes": 7,
}  # fmt: skip


def _imagenet(size: str, accuracy: str) -> Claim:
    name = f"resformer_{size}_patch16"
    return Claim(
        id=f"imagenet-{size}",
        statement=f"{name}, trained at 224, 160 and 128, keeps its accuracy on ImageNet-1k from "
        "96 to 640 pixels.",
        source="Table 1",
        paper_says=f"{accuracy} % top-1 at 96 / 128 / 224 / 384 / 640",
        cost="ImageNet-1k and 8 GPUs for days",
        command=f"python -m resformer.train fit --config {name} --trainer.devices 8",
    )


PAPER = Paper(
    slug="resformer",
    title="ResFormer: Scaling ViTs with Multi-Resolution Training",
    authors="Rui Tian, Zuxuan Wu, Qi Dai, Han Hu, Yu Qiao, Yu-Gang Jiang",
    year=2023,
    venue="CVPR 2023",
    arxiv="2212.00776",
    domain="vision",
    summary="A vision transformer trained at several resolutions at once, each taught by the next "
    "larger one, with positions that follow the size of the image.",
    official="ruitian12/resformer@33e2c09, MIT",
    bibtex="""@inproceedings{tian2023resformer,
  title     = {{ResFormer}: Scaling {ViTs} with Multi-Resolution Training},
  author    = {Tian, Rui and Wu, Zuxuan and Dai, Qi and Hu, Han and Qiao, Yu and Jiang, Yu-Gang},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2023}
}""",
    models=(ResFormer,),
    inputs=inputs,
    tiny=(
        ResFormerConfig(**_TINY),
        ResFormerConfig(**_TINY, qkv_bias=False, representation=12),
    ),
    parameters={
        "resformer_tiny_patch16": 5_689_192,
        "resformer_small_patch16": 21_986_536,
        "resformer_base_patch16": 86_431_720,
    },
    golden=golden,
    settings=settings,
    gradient_free={
        r"blocks\.1\.attention\.local\.(weight|bias)": "the last block's local positions reach the "
        "patches alone, and classes are read off the class token"
    },
    benchmark=Benchmark(
        axis="image side",
        sizes=(96, 128, 160, 224, 320),
        variant="resformer_tiny_patch16",
    ),
    commands={
        "classify images": "resformer classify photo.jpg --checkpoint resformer-s-mr.pth",
        "accuracy over size": "resformer sizes imagenet/val --checkpoint resformer-s-mr.pth "
        "--sizes 96,128,160,224,288,384 --out sizes.png",
        "train": "python -m resformer.train fit --config resformer_small_patch16 "
        "--data.data data/imagenet",
        "train on a CPU": "python -m resformer.train fit --config resformer_digits",
    },
    claims=(
        *claims.CLAIMS,
        _imagenet("tiny", "61.4 / 67.8 / 73.9 / 75.0 / 71.7"),
        _imagenet("small", "73.6 / 78.2 / 82.2 / 82.7 / 80.7"),
        _imagenet("base", "75.9 / 79.7 / 82.7 / 83.3 / 81.7"),
    ),
)
