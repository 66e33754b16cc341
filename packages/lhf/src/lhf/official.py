"""Checkpoints of the DICP code (jaehyeon-son/dicp), which the paper builds on -> these models."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from attention_core import CheckpointError, rename, replace
from torch import Tensor

_BLOCK = {
    "norm_1": "attention_norm",
    "norm_2": "feed_forward_norm",
    "attn.attn": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.swiglu.w1": "feed_forward.gate",
    "mlp.swiglu.w2": "feed_forward.up",
    "mlp.swiglu.w3": "feed_forward.down",
}
_HEADS = r"pred_(action|reward|next_state)s?"


def convert(kind: Any, state: Mapping[str, Tensor], **settings: Any) -> tuple[Any, dict]:
    """Configuration of the class ``kind`` and weights; ``settings`` as fields of the configuration.

    Raises:
        CheckpointError: when the state is none of a learner with such a configuration.
        ValueError: for an unknown setting, or one that the tensors contradict.
    """
    weights = rename_state(state)
    needed = ["embed_context.weight", "head_action.weight", "trunk.blocks.0.attention.qkv.weight"]
    if missing := [key for key in needed if key not in weights]:
        raise CheckpointError(
            f"not a checkpoint of AD or DPT: no {', '.join(missing)}; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    found = backbone(weights)
    if found != kind.backbone:
        raise CheckpointError(f"this is a checkpoint of {found}, not of {kind.backbone}")
    seen = _sizes(found, weights)
    for field, value in seen.items():
        if settings.get(field, value) != value:
            raise ValueError(f"{field}={settings[field]!r}: the checkpoint has {value}")
    return replace(kind(), **_with_default_heads(seen | settings)), weights


def rename_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under this package's names."""
    return rename(state, _name)


def backbone(weights: Mapping[str, Tensor]) -> str:
    """Whose the weights are: a learner's key in ``lhf.model.LEARNERS``."""
    query = weights.get("embed_query_state.weight", torch.empty(0, 0))
    if "embed_query_state.bias" not in weights:
        return "ad"
    return "dpt" if query.shape[1] == 2 else "continuous_ad"


def _sizes(found: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    dim, width = weights["embed_context.weight"].shape
    actions = weights["head_action.weight"].shape[0]
    seen: dict[str, Any] = {
        "dim": dim,
        "layers": 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("trunk.")),
        "inner": weights["trunk.blocks.0.feed_forward.gate.weight"].shape[0],
        "dynamics": "head_reward.weight" in weights,
    }
    if found == "continuous_ad":
        observation = weights["embed_query_state.weight"].shape[1]
        action = width - 1 - 2 * observation
        return seen | {
            "observation": observation,
            "action": action,
            "learn_variance": actions == 2 * action,
        }
    seen["actions"] = actions
    cells = weights["embed_query_state.weight"] if found == "ad" else None
    if cells is None and seen["dynamics"]:
        cells = weights["head_next_state.weight"]
    return seen if cells is None else seen | {"size": round(len(cells) ** 0.5)}


def _with_default_heads(fields: dict[str, Any]) -> dict[str, Any]:
    """As published: 8 heads of Meta-World's 64 channels, 4 of 32, 2 of 16."""
    return {"heads": max(1, fields["dim"] // 8), **fields}


def _name(key: str) -> str:
    if m := re.fullmatch(r"transformer\.blocks\.(\d+)\.(.+)\.(weight|bias)", key):
        return f"trunk.blocks.{m[1]}.{_BLOCK.get(m[2], m[2])}.{m[3]}"
    return re.sub(_HEADS, r"head_\1", key)
