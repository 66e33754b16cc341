"""The authors' checkpoints (zhengchen1999/RGT) -> this model."""

import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename, upsampling_scale
from image_restoration_kit.families import require_family
from torch import Tensor

from rgt.model import RGTConfig

_NAMES = {
    "before_RG.1": "embed_norm",
    "conv_after_body": "body_conv",
    "conv_before_upsample.0": "before_upsample",
}
_BLOCK_NAMES = {
    "mlp.sg.norm": "mlp.norm",
    "mlp.sg.conv": "mlp.conv",
    "attn.get_v": "attention.local",
    "attn.reduction1": "attention.reduce",
    "attn.dwconv": "attention.spread",
    "attn.conv": "attention.narrow",
    "attn.norm_act.0": "attention.norm",
    "attn.q": "attention.query",
    "attn.k": "attention.key",
    "attn.v": "attention.value",
    "attn.cpe": "attention.position",
    "attn": "attention",
}
_POSITION_NAMES = {
    f"pos.{theirs}": str(place)
    for place, theirs in zip(
        (0, 1, 3, 4, 6, 7, 9),
        ("pos_proj", "pos1.0", "pos1.2", "pos2.0", "pos2.2", "pos3.0", "pos3.2"),
        strict=True,
    )
}
_BUFFERS = ("rpe_biases", "relative_position_index", "attn_mask_0", "attn_mask_1")
_FIRST = "layers.0.blocks.0.attn"
_LAST_POSITION = "attns.0.pos.pos3.2.weight"
_NEEDED = (
    "conv_first.weight",
    "before_RG.1.weight",
    f"{_FIRST}.{_LAST_POSITION}",
    "layers.0.blocks.0.mlp.sg.conv.weight",
    "upsample.0.weight",
)


def convert(
    state: Mapping[str, Tensor],
    *,
    window: tuple[int, int] | None = None,
    key_ratio: float | None = None,
    image_range: float = 1.0,
    drop_path: float = 0.1,
) -> tuple[RGTConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``RGT.from_official``.

    Offsets, position indices and shift masks are left out.

    Raises:
        CheckpointError: when the file is not an RGT's, or contradicts itself.
    """
    require_family(state, "RGT", _NEEDED)
    dim, channels = state["conv_first.weight"].shape[:2]
    if key_ratio is None:
        narrow = [v for key, v in state.items() if key.endswith("blocks.1.attn.conv.weight")]
        key_ratio = len(narrow[0]) / dim if narrow else 0.5
    depths = _depths(state)
    try:
        config = RGTConfig(
            scale=upsampling_scale(state),
            channels=channels,
            dim=dim,
            depths=depths,
            heads=tuple(
                2 * len(state[f"layers.{group}.blocks.0.attn.{_LAST_POSITION}"])
                for group in range(len(depths))
            ),
            window=window or _window(state),
            mlp_ratio=len(state["layers.0.blocks.0.mlp.fc1.weight"]) / dim,
            key_ratio=key_ratio,
            residual="1conv" if "conv_after_body.weight" in state else "3conv",
            qkv_bias=f"{_FIRST}.qkv.bias" in state,
            image_range=image_range,
            drop_path=drop_path,
        )
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"an RGT checkpoint that no RGT fits: {error}") from error
    converted = rename(state, name)
    for key, value in converted.items():
        if key.endswith("attention.narrow.weight"):  # a 1x1 convolution, linear in our layout
            converted[key] = value.flatten(1)
    return config, converted


def name(key: str) -> str | None:
    """Our name for an entry of the authors' checkpoint; ``None`` for what we build ourselves."""
    if key.endswith(_BUFFERS):
        return None
    match = re.fullmatch(r"layers\.(\d+)\.(?:blocks\.(\d+)\.)?(.*)", key)
    if not match:
        return _translated(key, _NAMES)
    group, block, rest = match.groups()
    if block is None:
        return f"groups.{group}.{rest}"
    position = re.fullmatch(r"attn\.attns\.(\d)\.(.*)", rest)
    if position:
        rest = f"attention.positions.{position[1]}.{_translated(position[2], _POSITION_NAMES)}"
    else:
        rest = _translated(rest, _BLOCK_NAMES)
    return f"groups.{group}.blocks.{block}.{rest}"


def _translated(key: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        if key.startswith(f"{theirs}."):
            return ours + key.removeprefix(theirs)
    return key


def _depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each group, by their layer scales."""
    found = [re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.gamma", key) for key in state]
    blocks = {(int(match[1]), int(match[2])) for match in found if match}
    groups = 1 + max((group for group, _ in blocks), default=-1)
    depths = tuple(sum(group == number for group, _ in blocks) for number in range(groups))
    wanted = {(group, block) for group, depth in enumerate(depths) for block in range(depth)}
    if gaps := sorted(wanted - blocks) or (not all(depths) and [(depths.index(0), 0)]):
        group, block = gaps[0]
        raise CheckpointError(f"an RGT checkpoint with gaps: layers.{group}.blocks.{block}.gamma")
    return depths


def _window(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Sides of the lying rectangles: one more than the largest stored offsets."""
    offsets = state.get(f"{_FIRST}.attns.0.rpe_biases")
    if offsets is None:
        raise ValueError("the file holds weights alone and does not tell its window: give window=")
    down, right = (offsets.max(0).values.long() + 1).tolist()
    return down, right
