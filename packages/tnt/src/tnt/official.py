"""Checkpoints of the authors (huawei-noah/Efficient-AI-Backbones) and of timm -> TNT."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from attention_core import CheckpointError, rename
from einops import rearrange
from torch import Tensor

from tnt.model import VARIANTS, TNTConfig, resample, words_in

_TIMM = {
    "patch_pos": "outer_pos",
    "pixel_pos": "inner_pos",
    "pixel_embed.proj": "patch_embed.proj",
    "norm1_proj": "proj_norm1",
    "norm2_proj": "proj_norm2",
    "norm_in": "inner_norm1",
    "attn_in": "inner_attn",
    "norm_mlp_in": "inner_norm2",
    "mlp_in": "inner_mlp",
    "norm_out": "outer_norm1",
    "attn_out": "outer_attn",
    "norm_mlp": "outer_norm2",
    "mlp": "outer_mlp",
}
"""Modules and tables: timm's -> the authors'."""
_LAYER = {
    "norm1": "attention_norm",
    "attn.qk": "attention.query_key",
    "attn.v": "attention.value",
    "attn.proj": "attention.out",
    "norm2": "mlp_norm",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
}
_NAMES = {
    "cls_token": "class_token",
    "outer_pos": "outer_positions",
    "inner_pos": "inner_positions",
    "patch_embed.proj": "word_embedding",
    "proj_norm1": "sentence.0",
    "proj": "sentence.1",
    "proj_norm2": "sentence.2",
    "head": "classifier",
    **{f"{part}_{a}": f"{part}.{b}" for part in ("inner", "outer") for a, b in _LAYER.items()},
    **{f"se_layer.fc.{i}": f"outer.gate.{i}" for i in (0, 1, 3)},
}
"""Modules and tables: the authors' -> ours, inside a block where they stand in one."""
_BACK = {ours: theirs for theirs, ours in _NAMES.items()}
_DEAD = "outer_tokens"
Size = tuple[int, int] | int | None


def convert(
    state: Mapping[str, Tensor],
    *,
    image_size: Size = None,
    source_size: Size = None,
    patch_size: int = 16,
    inner_stride: int = 4,
    outer_heads: int | None = None,
    inner_heads: int | None = None,
    drop_path: float = 0.0,
) -> tuple[TNTConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``TNT.from_official``.

    Raises:
        CheckpointError: when the file is not TNT's, or has another number of words or patches.
        ValueError: for a setting that must be given.
    """
    state = from_timm_names(state) if "pixel_pos" in state else state
    needed = ("cls_token", "patch_embed.proj.weight", "blocks.0.outer_mlp.fc1.weight")
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not a TNT checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    told = _sizes(state)
    for name, value in (("outer_heads", outer_heads), ("inner_heads", inner_heads)):
        told[name] = _published(told, name) if value is None else value
    told |= {"patch_size": patch_size, "inner_stride": inner_stride, "drop_path": drop_path}
    words = len(state["proj_norm1.weight"]) // told["inner_dim"]
    if words != words_in(patch_size, inner_stride):
        raise CheckpointError(
            f"the checkpoint has {words} words in a patch, patch_size={patch_size} and "
            f"inner_stride={inner_stride} make {words_in(patch_size, inner_stride)}"
        )
    target, table = _pair(image_size), state.get("outer_pos")
    source = _source_size(table, _pair(source_size), target, patch_size)
    config = TNTConfig(**told, image_size=target or source)
    ours = from_official_names(state)
    if table is not None:
        grid = source[0] // patch_size, source[1] // patch_size
        ours["outer_positions"] = resample(table, grid, config.grid)
    return config, ours


def from_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' entries under this model's names, without ``outer_tokens``, which is dead."""
    ours = rename(state, lambda key: None if key == _DEAD else _translate(key, _NAMES))
    for key in [key for key in ours if ".attention.query_key." in key]:
        value = key.replace("query_key", "value")
        if value in ours:  # else both are reported when they are loaded
            joint = torch.cat([ours.pop(key), ours.pop(value)])
            ours[key.replace("query_key", "qkv")] = joint
    return ours


def to_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This model's entries, or their gradients, under the authors' names."""
    apart: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".attention.qkv." in key:
            dim = len(value) // 3
            apart[key.replace("qkv", "query_key")] = value[: 2 * dim]
            apart[key.replace("qkv", "value")] = value[2 * dim :]
        else:
            apart[key] = value
    return rename(apart, lambda key: _translate(key, _BACK))


def from_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of timm's under the authors' names.

    Raises:
        CheckpointError: for timm's legacy form, which is another network.
    """
    if "blocks.0.proj.bias" in state:
        raise CheckpointError(
            "this is timm's tnt_s_legacy_patch16_224: its words see across patches, it is another "
            "network; tnt_s_patch16_224 has the authors' weights"
        )
    theirs = rename(state, lambda key: _translate(key, _TIMM))
    theirs["inner_pos"] = rearrange(theirs["inner_pos"], "1 c y x -> 1 (y x) c")
    return theirs


def to_timm_names(state: Mapping[str, Tensor], words: tuple[int, int]) -> dict[str, Tensor]:
    """This model's entries under timm's names; ``words`` down and across in a patch."""
    back = {theirs: timm for timm, theirs in _TIMM.items()}
    named = rename(to_official_names(state), lambda key: _translate(key, back))
    named["pixel_pos"] = rearrange(named["pixel_pos"], "1 (y x) c -> 1 c y x", y=words[0])
    return named


def _translate(key: str, names: Mapping[str, str]) -> str:
    block = re.match(r"blocks\.\d+\.", key)
    place, rest = (block[0], key[block.end() :]) if block else ("", key)
    for length in range(rest.count(".") + 1, 0, -1):  # the longest name that is known
        head = ".".join(rest.split(".")[:length])
        if head in names:
            return place + names[head] + rest[len(head) :]
    return key


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors' shapes tell."""
    hidden, outer = state["blocks.0.outer_mlp.fc1.weight"].shape
    inner, channels = state["patch_embed.proj.weight"].shape[:2]
    ratio = hidden / outer
    if (fc1 := state.get("blocks.0.inner_mlp.fc1.weight")) is not None:
        ratio = max(ratio, len(fc1) / inner)  # both sizes were rounded down
    blocks = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))]
    return {
        "channels": channels,
        "classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "outer_dim": outer,
        "inner_dim": inner,
        "depth": 1 + max(blocks),
        "mlp_ratio": ratio,
        "qkv_bias": "blocks.0.outer_attn.v.bias" in state,
        "inner": "blocks.0.inner_attn.v.weight" in state,
        "squeeze_excite": "blocks.0.se_layer.fc.1.weight" in state,
        "outer_positions": "outer_pos" in state,
        "inner_positions": "inner_pos" in state,
    }


def _published(sizes: Mapping[str, Any], name: str) -> int:
    """The heads of the published network with the same widths."""
    for config in VARIANTS.values():
        if (config.outer_dim, config.inner_dim) == (sizes["outer_dim"], sizes["inner_dim"]):
            return getattr(config, name)
    raise ValueError(
        f"neither the checkpoint nor a published variant of outer_dim={sizes['outer_dim']} and "
        f"inner_dim={sizes['inner_dim']} tells {name}: give it by keyword"
    )


def _pair(size: Size) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size and (size[0], size[1])


def _source_size(
    table: Tensor | None,
    given: tuple[int, int] | None,
    target: tuple[int, int] | None,
    patch: int,
) -> tuple[int, int]:
    """Height and width of the images that the checkpoint's positions are for."""
    if table is None:
        return given or target or (224, 224)
    patches = table.shape[1] - 1
    side = math.isqrt(patches)
    square = (side * patch, side * patch) if side * side == patches else None
    size = given or square or target
    if size is None or size[0] // patch * (size[1] // patch) != patches:
        raise CheckpointError(
            f"the checkpoint has positions for {patches} patches, which is not "
            f"{'a square' if size is None else f'an image of {size[0]} x {size[1]}'}: "
            "give source_size, the size that it was trained at"
        )
    return size
