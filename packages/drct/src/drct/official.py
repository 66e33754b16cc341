"""The authors' checkpoints (ming053l/DRCT) -> this model."""

import math
import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename, upsampling_scale
from image_restoration_kit.families import require_family
from torch import Tensor

from drct.model import LAYERS, DRCTConfig

_NAMES = {
    "patch_embed.norm": "embed_norm",
    "absolute_pos_embed": "positions",
    "conv_after_body": "body_conv",
    "conv_before_upsample.0": "before_upsample",
}
_LAYER_NAMES = {
    "attn.relative_position_bias_table": "attention.table",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.proj",
}
_BUFFERS = ("relative_position_index", "attn_mask")
_TABLE = "swin1.attn.relative_position_bias_table"
_NEEDED = (
    "conv_first.weight",
    f"layers.0.{_TABLE}",
    "layers.0.adjust1.weight",
    "conv_before_upsample.0.weight",
    "upsample.0.weight",
)


def convert(
    state: Mapping[str, Tensor],
    *,
    image_range: float = 1.0,
    drop_path: float = 0.1,
    shifted: bool | None = None,
) -> tuple[DRCTConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``DRCT.from_official``.

    Position indices and shift masks, more than half of a DRCT-L file, are left out.

    Raises:
        CheckpointError: when the file is not a DRCT's, or contradicts itself.
    """
    require_family(state, "DRCT", _NEEDED)
    groups = sum(key.endswith(f".{_TABLE}") for key in state)
    try:
        tables = [state[f"layers.{group}.{_TABLE}"] for group in range(groups)]
    except KeyError as error:
        raise CheckpointError(f"a DRCT checkpoint with gaps: {error} is missing") from error
    dim, channels = state["conv_first.weight"].shape[:2]
    window = (math.isqrt(len(tables[0])) + 1) // 2
    positions = state.get("absolute_pos_embed")
    if shifted is None:
        bare = not any(key.endswith(_BUFFERS) for key in state)
        shifted = window > 1 and (bare or "layers.0.swin2.attn_mask" in state)
    try:
        config = DRCTConfig(
            scale=upsampling_scale(state),
            channels=channels,
            dim=dim,
            heads=tuple(table.shape[1] for table in tables),
            window=window,
            growth=len(state["layers.0.adjust1.weight"]),
            mlp_ratio=len(state["layers.0.swin1.mlp.fc1.weight"]) / dim,
            features=len(state["conv_before_upsample.0.weight"]),
            shifted=shifted,
            qkv_bias="layers.0.swin1.attn.qkv.bias" in state,
            embed_norm="patch_embed.norm.weight" in state,
            positions=None if positions is None else math.isqrt(positions.shape[1]),
            body_conv="conv_after_body.weight" in state,
            image_range=image_range,
            drop_path=drop_path,
        )
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"a DRCT checkpoint that no DRCT fits: {error}") from error
    converted = rename(state, name)
    for key, value in converted.items():
        if ".adjust." in key and value.ndim == 4:  # 1x1 convolutions, linear in our layout
            converted[key] = value.flatten(1)
        elif key == "positions" and config.positions:
            converted[key] = value.unflatten(1, (config.positions, -1))[0]
    return config, converted


def name(key: str) -> str | None:
    """Our name for an entry of the authors' checkpoint; ``None`` for what we build ourselves."""
    if key.endswith(_BUFFERS):
        return None
    match = re.fullmatch(rf"layers\.(\d+)\.(swin|adjust)([1-{LAYERS}])\.(.*)", key)
    if match:
        group, part, number, rest = match.groups()
        for theirs, ours in _LAYER_NAMES.items():
            rest = re.sub(rf"^{re.escape(theirs)}(?=\.|$)", ours, rest)
        part = "layers" if part == "swin" else part
        return f"groups.{group}.{part}.{int(number) - 1}.{rest}"
    for theirs, ours in _NAMES.items():
        key = re.sub(rf"^{re.escape(theirs)}(?=\.|$)", ours, key)
    return key
