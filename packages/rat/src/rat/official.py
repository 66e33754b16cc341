"""The authors' checkpoints (Yaziwel/Region-Attention-Transformer...) -> this model."""

import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename
from image_restoration_kit.families import require_family
from torch import Tensor

from rat.model import RATConfig

_NAMES = {
    "intro": "embed",
    "ending": "output",
    "middle_blks": "blocks",
    "conv1": "expand",
    "conv2": "depthwise",
    "conv3": "project",
    "conv4": "ffn_expand",
    "conv5": "ffn_project",
    "norm1": "norm",
    "norm2": "ffn_norm",
    "beta": "scale",
    "gamma": "ffn_scale",
    "project_out": "proj",
    "proj_out": "proj",
    **{
        theirs.format(short): ours.format(long)
        for short, long in (("ra", "region"), ("wa", "window"))
        for theirs, ours in (
            ("norm_{}", "{}_norm"),
            ("{}", "{}_attention"),
            ("lambda_{}", "{}_scale"),
            ("norm_{}_mlp", "{}_ffn_norm"),
            ("mlp_{}", "{}_ffn"),
        )
    },
}
_CONVOLUTIONS = ("embed.weight", "output.weight", "depthwise.weight", "conv.weight")
_LAYER = "middle_blks.0.layers.0"
_NEEDED = (
    "intro.weight",
    f"{_LAYER}.ra.qkv.weight",
    f"{_LAYER}.mlp_ra.fc1.weight",
    "downs.0.weight",
)


def convert(
    state: Mapping[str, Tensor], *, scale: int = 1, heads: int = 8, window: int = 4
) -> tuple[RATConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``RAT.from_official``.

    Raises:
        CheckpointError: when the file is not a RAT's.
    """
    require_family(state, "RAT", _NEEDED)
    levels = _count(state, r"downs\.(\d+)\.weight")
    width, channels = state["intro.weight"].shape[:2]
    hidden, dim = state[f"{_LAYER}.mlp_ra.fc1.weight"].shape[:2]
    try:
        config = RATConfig(
            scale=scale,
            channels=channels,
            width=width,
            encoder_depths=_depths(state, "encoders", levels),
            decoder_depths=_depths(state, "decoders", levels),
            blocks=_count(state, r"middle_blks\.(\d+)\.conv\.weight"),
            layers=_count(state, r"middle_blks\.0\.layers\.(\d+)\.lambda_ra"),
            heads=heads,
            window=window,
            mlp_ratio=hidden / dim,
        )
    except ValueError as error:
        raise CheckpointError(f"a RAT checkpoint that no RAT fits: {error}") from error
    return config, convert_entries(state)


def convert_entries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a network, or of a part of one, by our names and in our layout."""
    converted = rename(state, name)
    for key, value in converted.items():
        if key.endswith("scale"):
            converted[key] = value.flatten()
        elif value.ndim == 4 and not key.endswith(_CONVOLUTIONS):
            converted[key] = value.flatten(1)  # 1x1 and strided ones, linear in our layout
    return converted


def name(key: str) -> str:
    """Our name for an entry of the authors' checkpoint."""
    key = key.replace("sca.1.", "channel_attention.")
    key = re.sub(r"^(ups\.\d+)\.0\.", r"\1.", key)
    return ".".join(_NAMES.get(part, part) for part in key.split("."))


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(found[1]) for key in state if (found := re.fullmatch(pattern, key))]
    return max(numbers, default=-1) + 1


def _depths(state: Mapping[str, Tensor], part: str, levels: int) -> tuple[int, ...]:
    return tuple(_count(state, rf"{part}\.{level}\.(\d+)\.beta") for level in range(levels))
