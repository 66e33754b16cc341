"""The authors' checkpoint -> this model."""

import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename
from torch import Tensor

from sret.model import SretConfig

_NAMES = {"embed": "embedding", "norm": "norm", "head": "head"}
_BLOCK_NAMES = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "mlp_norm",
    "mlp.fc1": "rise",
    "mlp.fc2": "fall",
}


def convert(state: Mapping[str, Tensor], *, heads: int) -> tuple[SretConfig, dict[str, Tensor]]:
    """Configuration and weights of the authors' ``state``.

    Raises:
        CheckpointError: when the entries that tell the sizes are missing.
    """
    needed = ("embed.weight", "head.weight", "blocks.0.mlp.fc1.weight")
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not a Sret checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    dim, channels = state["embed.weight"].shape
    config = SretConfig(
        channels=channels,
        dim=dim,
        depth=1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        heads=heads,
        mlp_ratio=len(state["blocks.0.mlp.fc1.weight"]) // dim,
        classes=len(state["head.weight"]),
    )
    return config, rename(state, _name)


def _name(key: str) -> str:
    """Our name of the authors' ``key``; an unknown one stays, for the strict load to name it."""
    if block := re.fullmatch(r"(blocks\.\d+)\.(.+)\.(weight|bias)", key):
        place, part, kind = block.groups()
        return f"{place}.{_BLOCK_NAMES.get(part, part)}.{kind}"
    part, _, kind = key.rpartition(".")
    return f"{_NAMES.get(part, part)}.{kind}"
