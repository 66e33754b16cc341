"""The authors' checkpoints (AVC2-UESTC/CRAFT-SR) -> this model."""

import math
import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename
from image_restoration_kit.families import require_family
from torch import Tensor

from craft.model import CRAFTConfig

WINDOW = (4, 16)
"""Of every published network."""
_NAMES = {
    r"^conv_after_body\.": "body_conv.",
    r"^layers\.": "groups.",
    r"\.body\.(weight|bias)$": r".\1",
    r"\.residual_group\.hfer_blocks\.(\d+)\.last_fc\.": r".blocks.\1.high.merge.",
    r"\.residual_group\.hfer_blocks\.(\d+)\.fc\.": r".blocks.\1.high.linear.",
    r"\.residual_group\.hfer_blocks\.(\d+)\.": r".blocks.\1.high.",
    r"\.residual_group\.hf_blocks\.(\d+)\.": r".blocks.\1.fusion.",
    r"\.attn\.q\.": ".attention.query.0.",
    r"\.attn\.q_dwconv\.": ".attention.query.1.",
    r"\.attn\.kv\.": ".attention.key_value.0.",
    r"\.attn\.kv_dwconv\.": ".attention.key_value.1.",
    r"\.attn\.project_out\.": ".attention.proj.",
    r"\.attn\.": ".attention.",
    r"\.ffn\.project_in\.": ".gate.fc1.",
    r"\.ffn\.dwconv\.": ".gate.spread.",
    r"\.ffn\.project_out\.": ".gate.fc2.",
    r"\.rectangles\.(\d)\.(qkv|proj)\.": r".rectangles.\1.attention.\2.",
    r"\.get_v\.": ".attention.local.",
    r"\.attns\.(\d)\.pos\.pos_proj\.": r".attention.positions.\1.0.",
    r"\.attns\.(\d)\.pos\.pos1\.0\.": r".attention.positions.\1.1.",
    r"\.attns\.(\d)\.pos\.pos1\.2\.": r".attention.positions.\1.3.",
    r"\.attns\.(\d)\.pos\.pos2\.0\.": r".attention.positions.\1.4.",
    r"\.attns\.(\d)\.pos\.pos2\.2\.": r".attention.positions.\1.6.",
    r"\.attns\.(\d)\.pos\.pos3\.0\.": r".attention.positions.\1.7.",
    r"\.attns\.(\d)\.pos\.pos3\.2\.": r".attention.positions.\1.9.",
}
_BUFFERS = ("relative_position_index_h", "relative_position_index_v", "biases_h", "biases_v")
_TEMPERATURE = "attn.temperature"
_BLOCK = "layers.0.residual_group"
_NEEDED = (
    "conv_first.weight",
    f"{_BLOCK}.srwa_blocks.0.mlp.fc1.weight",
    f"{_BLOCK}.hf_blocks.0.{_TEMPERATURE}",
    f"{_BLOCK}.hf_blocks.0.ffn.project_out.weight",
    "upsample.0.weight",
)


def convert(
    state: Mapping[str, Tensor],
    *,
    window: tuple[int, int] | None = None,
    image_range: float = 1.0,
) -> tuple[CRAFTConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``CRAFT.from_official``.

    Raises:
        CheckpointError: when the file is not a CRAFT's, or contradicts itself or ``window``.
    """
    require_family(state, "CRAFT", _NEEDED)
    dim, channels = state["conv_first.weight"].shape[:2]
    depths: list[int] = []
    heads: list[int] = []
    while temperatures := _temperatures(state, len(depths)):
        depths.append(len(temperatures))
        heads.append(len(temperatures[0]))
    try:
        config = CRAFTConfig(
            scale=math.isqrt(len(state["upsample.0.weight"]) // channels),
            channels=channels,
            dim=dim,
            depths=tuple(depths),
            heads=tuple(heads),
            window=_window(state, window),
            mlp_ratio=_ratio(len(state[_NEEDED[1]]), dim, 2.0),
            fusion_ratio=_ratio(state[_NEEDED[3]].shape[1], dim, 2.66),
            qkv_bias=f"{_BLOCK}.srwa_blocks.0.qkv.bias" in state,
            body_conv="conv_after_body.weight" in state,
            image_range=image_range,
        )
    except ValueError as error:
        raise CheckpointError(f"a CRAFT checkpoint that no CRAFT fits: {error}") from error
    return config, rename(state, name)


def name(key: str) -> str | None:
    """Our name for an entry of the authors' checkpoint; ``None`` for what we build ourselves."""
    if key.endswith(_BUFFERS):
        return None
    match = re.fullmatch(r"(layers\.\d+)\.residual_group\.srwa_blocks\.(\d+)\.(.*)", key)
    if match:
        group, number, rest = match.groups()
        block, shifted = divmod(int(number), 2)
        key = f"{group}.blocks.{block}.rectangles.{shifted}.{rest}"
    for theirs, ours in _NAMES.items():
        key = re.sub(theirs, ours, key)
    return key


def _temperatures(state: Mapping[str, Tensor], group: int) -> list[Tensor]:
    pattern = rf"layers\.{group}\.residual_group\.hf_blocks\.\d+\.{re.escape(_TEMPERATURE)}"
    return [value for key, value in state.items() if re.fullmatch(pattern, key)]


def _window(state: Mapping[str, Tensor], given: tuple[int, int] | None) -> tuple[int, int]:
    offsets = state.get("biases_h")
    if offsets is None:
        return given or WINDOW
    height, width = (1 - int(least) for least in offsets.amin(0))
    if given not in (None, (height, width)):
        raise ValueError(f"window={given}, but the file has offsets of {(height, width)}")
    return height, width


def _ratio(hidden: int, dim: int, published: float) -> float:
    """The ratio that gives ``hidden`` channels: the published one if it does."""
    return published if int(dim * published) == hidden else hidden / dim
