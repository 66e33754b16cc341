"""RMT's identity and claims."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor

from rmt import claims
from rmt.convolution import to_image
from rmt.model import RMT, EncoderConfig, RMTBackbone, RMTBackboneConfig, RMTConfig
from rmt.official import to_official_names
from rmt.token_labels import token_label_loss

_SETTINGS = {
    "num_heads": "heads",
    "init_values": "decay_start",
    "heads_ranges": "decay_spread",
    "decomposed_stages": "decomposed",
    "chunkwise_recurrents": "decomposed",
    "drop_path_rate": "drop_path",
}
"""What the golden cases call the settings of ``from_official``."""


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case: a classifier, with or without token labels, a backbone, or the loss."""
    inputs, expected = case.inputs(), case.record["outputs"]
    if "image" not in inputs:
        return _golden_loss(case, inputs)
    given = {ours: case.config[name] for name, ours in _SETTINGS.items() if name in case.config}
    state, images = case.state_dict(), inputs["image"].requires_grad_()
    dense = any(key.startswith("extra_norms.") for key in state)
    model = (RMTBackbone if dense else RMT).from_official(state, **given).to(case.dtype)
    model.train(case.record.get("mode") == "train")
    outputs = _golden_backbone(model, images) if dense else _golden_classifier(case, model, images)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    outputs |= {f"grad:{n}": grad for n, grad in to_official_names(gradients).items()}
    outputs |= {"grad:input": images.grad, "grad:image": images.grad}
    outputs |= to_official_names(model.state_dict())  # a training case may ask for statistics
    return {name: outputs[name] for name in expected if name in outputs}


def _golden_backbone(model: Any, images: Tensor) -> dict[str, Any]:
    maps = model(images)
    maps[-1].square().mean().backward()
    return {f"stage{i}": x for i, x in zip(model.config.out_indices, maps, strict=True)}


def _golden_classifier(case: GoldenCase, model: Any, images: Tensor) -> dict[str, Any]:
    box = case.inputs().get("box", case.config.get("box"))
    stem = model.embed(images)
    if model.training and model.config.token_labels:
        found = model(images, None if box is None else torch.as_tensor(box))
        (found.logits.square().mean() + found.token_logits.square().mean()).backward()
        return {
            "class_logits": found.logits,
            "token_logits": found.token_logits,
            "box": found.box.tolist(),
        }
    maps = model.stage_maps(stem)
    outputs = {"stem": to_image(stem), "tokens": maps[-1], "features": maps[-1]}
    for i, (stage, x) in enumerate(zip(model.stages, maps, strict=True)):
        outputs[f"after_layer{i}"] = to_image(stage.halve(x)) if i + 1 < len(maps) else to_image(x)
    if not model.training:  # a second pass would move the statistics once more
        outputs["prelogits"] = model.forward_head(maps[-1], pre_logits=True)
    outputs["class_logits"] = outputs["logits"] = model.forward_head(maps[-1])
    if model.config.token_labels:
        outputs["token_logits"] = model.token_logits(maps[-1])
        outputs["logits"] = outputs["class_logits"] + 0.5 * outputs["token_logits"].amax(1)
    outputs["logits"].square().mean().backward()
    return outputs


def _golden_loss(case: GoldenCase, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The token-labelling loss, by the names of its inputs."""

    def named(*words: str) -> Any:
        found = [v for k, v in inputs.items() if any(word in k for word in words)]
        return (
            found[0] if found else next((case.config[w] for w in words if w in case.config), None)
        )

    logits, tokens = named("class_logits", "output", "cls"), named("token", "aux")
    target = named("target")
    logits.requires_grad_(), tokens.requires_grad_()
    loss = token_label_loss(
        logits,
        tokens,
        torch.as_tensor(named("box", "bb")),
        target,
        class_weight=case.config.get("cls_weight", 1.0),
        token_weight=case.config.get("dense_weight", 1.0),
        ground_truth=bool(case.config.get("ground_truth", False)),
    )
    loss.backward()
    pair = torch.stack([loss.detach().double(), torch.zeros((), dtype=torch.float64)])
    return {
        "loss": loss,
        "loss:value,0": pair,
        "grad:class_logits": logits.grad,
        "grad:token_logits": tokens.grad,
    }


def inputs(config: EncoderConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Images of ``size`` pixels a side (64 by default)."""
    side = size or 64
    return {"images": torch.randn(batch, config.channels, side, side)}


def settings(config: EncoderConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    names = ("heads", "decay_start", "decay_spread", "decomposed", "drop_path")
    return {name: getattr(config, name) for name in names}


def whole(config: EncoderConfig) -> RMT:
    """The network with attention over whole maps in every stage: the race's other side."""
    assert isinstance(config, RMTConfig)
    return RMT(replace(config, decomposed=(False,) * len(config.dims)))


_TINY: dict[str, Any] = {
    "dims": (16, 24, 32, 48),
    "depths": (1, 2, 1, 1),
    "heads": (2, 3, 4, 4),
    "mlp_ratios": (2, 2, 2, 2),
    "decomposed": (True, True, False, False),
    "drop_path": 0.0,
}


def _published(
    id: str, statement: str, source: str, figures: str, cost: str, command: str
) -> Claim:
    return Claim(
        id=id,
        statement=statement,
        source=source,
        paper_says=figures,
        cost=cost,
        command=command,
    )


def _imagenet(name: str, accuracy: str) -> Claim:
    return _published(
        f"imagenet-{name.removeprefix('rmt_').replace('_', '-')}",
        f"{name} reaches {accuracy} % top-1 on ImageNet-1k.",
        "Table 1",
        f"{accuracy} % top-1",
        "ImageNet-1k and 8 GPUs for days",
        f"python -m rmt.train fit --config {name} --trainer.devices 8 --trainer.strategy ddp",
    )


PAPER = Paper(
    slug="rmt",
    title="RMT: Retentive Networks Meet Vision Transformers",
    authors="Qihang Fan, Huaibo Huang, Mingrui Chen, Hongmin Liu, Ran He",
    year=2024,
    venue="CVPR 2024",
    arxiv="2309.11523",
    domain="vision",
    summary="Attention whose logits fall with the Manhattan distance between positions, and its "
    "decomposition along rows and columns: an image backbone with a spatial prior.",
    official="qhfan/RMT@32ea214, without a licence",
    bibtex="""@inproceedings{fan2024rmt,
  title     = {{RMT}: Retentive Networks Meet Vision Transformers},
  author    = {Fan, Qihang and Huang, Huaibo and Chen, Mingrui and Liu, Hongmin and He, Ran},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2024}
}""",
    models=(RMT, RMTBackbone),
    inputs=inputs,
    tiny=(
        RMTConfig(**_TINY, projection=40, classes=10),
        RMTConfig(**_TINY, projection=40, classes=10, token_labels=True),
        RMTConfig(
            **{**_TINY, "decomposed": (True, True, True, False)},
            projection=40,
            classes=10,
            layer_scale=(False, False, True, True),
            layer_scale_init=0.1,
        ),
        RMTBackboneConfig(**_TINY),
    ),
    parameters={
        "rmt_t": 14_334_216,
        "rmt_s": 26_967_240,
        "rmt_b": 54_154_896,
        "rmt_l": 95_464_864,
        "rmt_s_token_label": 27_480_240,
        "rmt_b_token_label": 54_667_896,
        "rmt_l_token_label": 96_105_864,
        "rmt_t_backbone": 12_783_776,
    },
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="image side",
        sizes=(64, 128, 224),
        usual=224,
        variant="rmt_t",
        baseline=whole,
        baseline_name="whole attention in every stage",
    ),
    commands={
        "predict": "rmt classify image.jpg --checkpoint RMT-S.pth",
        "the decay that a token sees": "rmt classify image.jpg -m RMT-S.pth --map map.png",
        "accuracy at any size": "rmt evaluate imagenet/val --checkpoint RMT-S.pth --size 224",
        "train": "python -m rmt.train fit --config rmt_s --trainer.devices 8",
    },
    claims=(
        Claim(
            id="sizes",
            statement="The four sizes have 14, 27, 54 and 95 million parameters and cost 2.5, 4.5, "
            "9.7 and 18.2 G at 224 x 224.",
            source="Table 1",
            paper_says="14/27/54/95 M, 2.5/4.5/9.7/18.2 G",
            cost="seconds on a CPU",
            measure=claims.sizes,
        ),
        Claim(
            id="decomposition-keeps-decay",
            statement="Decomposing attention along rows and columns leaves the Manhattan decay as "
            "it is.",
            source="Sec. 3.2, Eq. 6",
            paper_says="-",
            cost="a second on a CPU",
            measure=claims.decomposition_keeps_decay,
        ),
        Claim(
            id="decomposition-cost",
            statement="Decomposed attention costs far less than attention over the whole map as "
            "maps grow.",
            source="Sec. 3.2",
            paper_says="linear rather than quadratic in the keys of a position",
            cost="10 s on two CPU cores",
            measure=claims.decomposition_cost,
        ),
        Claim(
            id="learns-digits",
            statement="A small RMT learns digits well beyond a linear classifier in 300 steps.",
            source="this project",
            paper_says="-",
            cost="2 minutes on two CPU cores",
            measure=claims.learns_digits,
            fast=False,
        ),
        Claim(
            id="decay-helps",
            statement="The spatial decay improves on plain attention.",
            source="Table 6 (MaSA against attention)",
            paper_says="82.4 against 81.6 % on ImageNet with RMT-T",
            cost="4 minutes on two CPU cores, on digits",
            measure=claims.decay_helps,
            fast=False,
        ),
        Claim(
            id="dense-maps",
            statement="The four maps of the backbone carry what dense prediction needs.",
            source="Sec. 4.2, 4.3",
            paper_says="better detection and segmentation than other backbones",
            cost="2 minutes on two CPU cores, on texture mosaics",
            measure=claims.dense_maps,
            fast=False,
        ),
        _imagenet("rmt_t", "82.4"),
        _imagenet("rmt_s", "84.1"),
        _imagenet("rmt_b", "85.0"),
        _imagenet("rmt_l", "85.5"),
        _published(
            "imagenet-token-labels",
            "Token labelling raises S, B and L to 84.8, 85.6 and 86.1 % top-1.",
            "Table 1",
            "84.8 / 85.6 / 86.1 % top-1",
            "ImageNet-1k with NFNet's label maps and 8 GPUs for days",
            "python -m rmt.train fit --config rmt_s_token_label --trainer.devices 8",
        ),
        _published(
            "coco",
            "Mask R-CNN with RMT-S reaches 49.0 box and 43.9 mask AP on COCO in 12 epochs.",
            "Table 3",
            "49.0 AP box, 43.9 AP mask",
            "COCO 2017 and 8 GPUs for a day",
            'tools/train.py of mmdetection, after rmt.dense.register(MODELS), with type="RMT"',
        ),
        _published(
            "ade20k",
            "Semantic FPN with RMT-S reaches 49.4 mIoU on ADE20K.",
            "Table 5",
            "49.4 mIoU",
            "ADE20K and 8 GPUs for a day",
            'tools/train.py of mmsegmentation, after rmt.dense.register(MODELS), with type="RMT"',
        ),
    ),
)
