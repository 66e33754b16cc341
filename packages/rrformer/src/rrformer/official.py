"""The authors' checkpoints -> this model."""

import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename
from torch import Tensor

from rrformer.features import CONVOLUTIONS, WIDTHS, vgg_state
from rrformer.model import RRFormerConfig

GENERATORS = ("icnn.", "net_i.", "module.", "")
"""What the generator's entries may be called by; a checkpoint holds it as ``icnn``."""
NAMES = {
    "conv1.conv2d": "embedding.hypercolumn",
    "conv2.conv2d": "embedding.conv",
    "conv3.conv2d": "embedding.shrink",
    "deconv1.conv2d": "decoder.grow",
    "deconv2.conv2d": "decoder.refine",
    "deconv3.conv2d": "decoder.last",
    "pyramid_module.bottleneck": "decoder.pyramid.mix",
    "swinir_block.patch_embed.norm": "body.first_norm",
    "swinir_block.norm": "body.norm",
    "swinir_block.conv_after_body": "body.conv",
}
LAYER_NAMES = {
    "attn.relative_position_bias_table": "attention.table",
    "attn.qkv.weight": "attention.qkv.weight",
    "attn.qkv.bias": "attention.qkv.bias",
    "attn.proj.weight": "attention.proj.weight",
    "attn.proj.bias": "attention.proj.bias",
}
_LAYER = r"swinir_block\.layers\.(\d+)\.residual_group\.blocks\.(\d+)\.(.+)"


def convert(
    state: Mapping[str, Tensor],
    vgg: Mapping[str, Tensor] | None,
    *,
    heads: int,
    body: str,
    drop_path: float,
) -> tuple[RRFormerConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``RRFormer.from_official``.

    Raises:
        CheckpointError: when the file is not an RRFormer, or VGG-19 is missing.
    """
    network = generator(state)
    window = network["swinir_block.layers.0.residual_group.blocks.0." + next(iter(LAYER_NAMES))]
    dim = len(network["conv3.conv2d.weight"])
    depths: dict[int, int] = {}
    stages = 0
    for key in network:
        if m := re.fullmatch(_LAYER, key):
            depths[int(m[1])] = max(depths.get(int(m[1]), 0), int(m[2]) + 1)
        if m := re.match(r"pyramid_module\.stages\.(\d+)\.", key):
            stages = max(stages, int(m[1]) + 1)
    channels = network["conv1.conv2d.weight"].shape[1]
    hidden = len(network["swinir_block.layers.0.residual_group.blocks.0.mlp.fc1.weight"])
    config = RRFormerConfig(
        features=len(network["conv1.conv2d.weight"]),
        dim=dim,
        depths=tuple(depths[group] for group in sorted(depths)),
        heads=heads,
        window=(round(len(window) ** 0.5) + 1) // 2,
        mlp_ratio=hidden / dim,
        pyramid=tuple(4 * 2**stage for stage in range(stages)),
        pyramid_features=len(network["pyramid_module.stages.0.1.weight"]),
        hypercolumn=channels == 3 + sum(WIDTHS),
        body=body,
        drop_path=drop_path,
    )
    weights = rename(network, name)
    if config.hypercolumn:
        weights |= _features(vgg if vgg is not None else state)
    return config, weights


def generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's entries, by the authors' names.

    Raises:
        CheckpointError: when they are not there.
    """
    for prefix in GENERATORS:
        if f"{prefix}conv1.conv2d.weight" in state and f"{prefix}swinir_block.norm.weight" in state:
            return {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix) and not key.startswith("vgg.")
            }
    raise CheckpointError(
        "not an RRFormer checkpoint: conv1.conv2d.weight and swinir_block.norm.weight missing; it "
        f"starts with {', '.join(list(state)[:5])}"
    )


def _features(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        found = vgg_state(state, [str(place) for place in CONVOLUTIONS if place <= 28])
    except CheckpointError as error:
        raise CheckpointError(
            "the hypercolumn needs VGG-19, which the authors' checkpoints don't hold: give "
            f"torchvision's vgg19-dcbb9e9d.pth as vgg ({error})"
        ) from error
    return {f"embedding.vgg.{key}": value for key, value in found.items()}


def name(key: str) -> str | None:
    """Our name of an entry; ``None`` for masks, indices and the last convolution, never used."""
    if m := re.fullmatch(_LAYER, key):
        if m[3] in ("attn_mask", "attn.relative_position_index"):
            return None
        return f"body.groups.{m[1]}.layers.{m[2]}.{LAYER_NAMES.get(m[3], m[3])}"
    if m := re.fullmatch(r"swinir_block\.layers\.(\d+)\.conv\.(.+)", key):
        return f"body.groups.{m[1]}.conv.{m[2]}"
    if m := re.fullmatch(r"pyramid_module\.stages\.(\d+)\.1\.weight", key):
        return f"decoder.pyramid.stages.{m[1]}.weight"
    module, _, kind = key.rpartition(".")
    if module == "swinir_block.conv_last":
        return None
    return f"{NAMES.get(module, module)}.{kind}"
