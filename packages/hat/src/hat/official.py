"""The authors' checkpoints (XPixelGroup/HAT) -> this model."""

import math
import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename, upsampling_scale
from image_restoration_kit.families import require_family
from torch import Tensor

from hat.model import HATConfig

_NAMES = {
    r"^patch_embed\.norm\.": "embed_norm.",
    r"^absolute_pos_embed$": "positions",
    r"^conv_after_body\.": "body_conv.",
    r"^conv_before_upsample\.0\.": "before_upsample.",
    r"^layers\.": "groups.",
    r"\.residual_group\.": ".",
    r"\.overlap_attn\.(?=relative|qkv|proj)": ".overlap.attention.",
    r"\.overlap_attn\.": ".overlap.",
    r"\.attn\.": ".attention.",
    r"\.relative_position_bias_table$": ".table",
    r"\.conv_block\.cab\.0\.": ".conv.compress.",
    r"\.conv_block\.cab\.2\.": ".conv.expand.",
    r"\.conv_block\.cab\.3\.attention\.1\.": ".conv.squeeze.",
    r"\.conv_block\.cab\.3\.attention\.3\.": ".conv.excite.",
}
_BUFFERS = ("relative_position_index_SA", "relative_position_index_OCA", "attn_mask")
_GROUP = "layers.0.residual_group"
_TABLE = "overlap_attn.relative_position_bias_table"
_NEEDED = (
    "conv_first.weight",
    f"{_GROUP}.blocks.0.attn.relative_position_bias_table",
    f"{_GROUP}.blocks.0.mlp.fc1.weight",
    f"{_GROUP}.blocks.0.conv_block.cab.0.weight",
    f"{_GROUP}.blocks.0.conv_block.cab.3.attention.1.weight",
    f"{_GROUP}.{_TABLE}",
    "conv_before_upsample.0.weight",
)


def convert(
    state: Mapping[str, Tensor],
    *,
    conv_scale: float = 0.01,
    image_range: float = 1.0,
    drop_path: float = 0.1,
    shifted: bool = True,
) -> tuple[HATConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``HAT.from_official``.

    Raises:
        CheckpointError: when the file is not a HAT's, or contradicts itself.
    """
    require_family(state, "HAT", _NEEDED)
    groups = sum(key.endswith(_TABLE) for key in state)
    try:
        tables = [state[f"layers.{group}.residual_group.{_TABLE}"] for group in range(groups)]
    except KeyError as error:
        raise CheckpointError(f"a HAT checkpoint with gaps: {error} is missing") from error
    dim, channels = state["conv_first.weight"].shape[:2]
    window = (math.isqrt(len(state[_NEEDED[1]])) + 1) // 2
    positions = state.get("absolute_pos_embed")
    try:
        config = HATConfig(
            scale=upsampling_scale(state),
            channels=channels,
            dim=dim,
            depths=tuple(_blocks(state, group) for group in range(groups)),
            heads=tuple(table.shape[1] for table in tables),
            window=window,
            overlap=_overlap(tables[0], window),
            compress=dim // len(state[_NEEDED[3]]),
            squeeze=dim // len(state[_NEEDED[4]]),
            conv_scale=conv_scale,
            mlp_ratio=len(state[_NEEDED[2]]) / dim,
            features=len(state["conv_before_upsample.0.weight"]),
            shifted=shifted and window > 1,
            qkv_bias=f"{_GROUP}.overlap_attn.qkv.bias" in state,
            embed_norm="patch_embed.norm.weight" in state,
            positions=None if positions is None else math.isqrt(positions.shape[1]),
            body_conv="conv_after_body.weight" in state,
            image_range=image_range,
            drop_path=drop_path,
        )
    except ValueError as error:
        raise CheckpointError(f"a HAT checkpoint that no HAT fits: {error}") from error
    converted = rename(state, name)
    if positions is not None:
        side = config.positions
        converted["positions"] = positions.unflatten(1, (side, -1))[0]
    return config, converted


def name(key: str) -> str | None:
    """Our name for an entry of the authors' checkpoint; ``None`` for what we build ourselves."""
    if key.endswith(_BUFFERS):
        return None
    for theirs, ours in _NAMES.items():
        key = re.sub(theirs, ours, key)
    return key


def _blocks(state: Mapping[str, Tensor], group: int) -> int:
    pattern = rf"layers\.{group}\.residual_group\.blocks\.\d+\.norm1\.weight"
    return sum(re.fullmatch(pattern, key) is not None for key in state)


def _overlap(table: Tensor, window: int) -> int:
    excess = math.isqrt(len(table)) + 1 - 2 * window  # of a window of keys over one of queries
    if excess % 2:
        raise ValueError(f"windows of {window + excess} can't overlap evenly those of {window}")
    return excess // 2
