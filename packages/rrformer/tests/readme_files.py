"""The files that the README's commands name."""

from pathlib import Path

import torch
from attention_core import rename
from image_restoration_kit import write_picture
from image_restoration_kit.data import DrawnImages
from rrformer import RRFormer, RRFormerConfig
from rrformer.official import name as ours


def official(model: torch.nn.Module) -> tuple[dict, dict]:
    """A network's weights by the authors' names, and VGG-19's by torchvision's."""
    own = model.state_dict()
    vgg = rename(
        own,
        lambda key: key.replace("embedding.vgg.layers.", "features.") if "vgg." in key else None,
    )
    network = {}
    for key in NAMES:
        if (ours_ := ours(key)) in own:
            network[key] = own[ours_]
    return network, vgg


def _names() -> list[str]:
    convs = [f"conv{i}.conv2d" for i in (1, 2, 3)] + [f"deconv{i}.conv2d" for i in (1, 2, 3)]
    body = ["patch_embed.norm", "norm", "conv_after_body"]
    modules = convs + ["pyramid_module.bottleneck"] + [f"swinir_block.{b}" for b in body]
    names = [f"{m}.{kind}" for m in modules for kind in ("weight", "bias")]
    names += [f"pyramid_module.stages.{i}.1.weight" for i in range(4)]
    parts = ["norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    for group in range(5):
        layer = f"swinir_block.layers.{group}"
        names += [f"{layer}.conv.{kind}" for kind in ("weight", "bias")]
        for block in range(6):
            stem = f"{layer}.residual_group.blocks.{block}"
            names += [f"{stem}.{p}.{kind}" for p in parts for kind in ("weight", "bias")]
            names.append(f"{stem}.attn.relative_position_bias_table")
    return names


NAMES = _names()


def make(folder: Path) -> None:
    torch.manual_seed(0)
    config = RRFormerConfig(features=16, dim=24, depths=(1,), pyramid_features=8)
    network, vgg = official(RRFormer(config))
    torch.save({"icnn": network, "epoch": 3}, folder / "errnet_latest.pt")
    torch.save(vgg, folder / "vgg19-dcbb9e9d.pth")
    pictures = DrawnImages(count=2, side=96)
    for name in pictures.names:
        image = pictures.read(name)
        write_picture(folder / "transmission" / f"{name}.png", image)
        write_picture(folder / "photos" / f"{name}.png", (image + 0.1).clamp(0, 1))
