"""Checkpoints of the authors (ruitian12/resformer), and of plain ViTs -> ResFormer."""

import re
from collections.abc import Mapping
from typing import Any

from attention_core import CheckpointError, rename
from torch import Tensor

from resformer.model import ResFormerConfig

_NAMES = {
    "cls_token": "class_token",
    "patch_embed.proj": "patch_embedding",
    "pos_embed.embed_layer": "positions",
    "pre_logits.fc": "representation.0",
    "head": "classifier",
    "norm1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.get_v": "attention.local",
    "attn.proj": "attention.out",
    "norm2": "mlp_norm",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
"""Modules and tables: the authors' -> ours, inside a block where they stand in one."""
_BACK = {ours: theirs for theirs, ours in _NAMES.items()}
_NEEDED = ("cls_token", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")


def convert(
    state: Mapping[str, Tensor], *, norm_eps: float = 1e-6, drop_path: float = 0.0
) -> tuple[ResFormerConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``ResFormer.from_official``.

    Raises:
        CheckpointError: when the file is not ResFormer's.
    """
    _require(state, "ResFormer", *_NEEDED[:2])
    if "pos_embed" in state:
        raise CheckpointError("this is a plain ViT with a table of positions: use from_vit")
    _require(state, "ResFormer", _NEEDED[2], "blocks.0.attn.get_v.weight")
    heads = state["cls_token"].shape[-1] // len(state["blocks.0.attn.get_v.weight"])
    config = ResFormerConfig(**_sizes(state), heads=heads, norm_eps=norm_eps, drop_path=drop_path)
    return config, from_official_names(state)


def convert_vit(
    state: Mapping[str, Tensor], *, heads: int | None = None, norm_eps: float = 1e-6
) -> tuple[ResFormerConfig, dict[str, Tensor]]:
    """Configuration, and a plain ViT's weights under our names, its table of positions left out.

    Raises:
        CheckpointError: when the file is no plain ViT's: distilled, or with other parts.
    """
    _require(state, "plain ViT", *_NEEDED, "pos_embed")
    if "dist_token" in state:
        raise CheckpointError("this ViT has a distillation token: no plain ViT")
    heads = heads or max(1, state["cls_token"].shape[-1] // 64)
    config = ResFormerConfig(**_sizes(state), heads=heads, norm_eps=norm_eps)
    return config, from_official_names({k: v for k, v in state.items() if k != "pos_embed"})


def from_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' entries under this model's names."""
    return rename(state, lambda key: _translate(key, _NAMES))


def to_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This model's entries, or their gradients, under the authors' names."""
    return rename(state, lambda key: _translate(key, _BACK))


def _translate(key: str, names: Mapping[str, str]) -> str:
    block = re.match(r"blocks\.\d+\.", key)
    place, rest = (block[0], key[block.end() :]) if block else ("", key)
    module, dot, entry = rest.rpartition(".")
    return place + names.get(rest, names.get(module, module) + dot + entry)


def _require(state: Mapping[str, Tensor], kind: str, *keys: str) -> None:
    if missing := [key for key in keys if key not in state]:
        raise CheckpointError(
            f"not a {kind} checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors' shapes tell."""
    dim, channels, patch_size, _ = state["patch_embed.proj.weight"].shape
    hidden = state.get("pre_logits.fc.weight")
    blocks = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))]
    return {
        "channels": channels,
        "classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "patch_size": patch_size,
        "dim": dim,
        "depth": 1 + max(blocks),
        "mlp_ratio": len(state["blocks.0.mlp.fc1.weight"]) / dim,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "representation": None if hidden is None else len(hidden),
    }
