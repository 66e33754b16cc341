"""The authors' checkpoints (NeonLeexiang/DLGSANet) -> this model."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from attention_core import CheckpointError, rename, upsampling_scale
from image_restoration_kit.families import require_family
from torch import Tensor

from dlgsanet.model import CONVERTER, DLGSANetConfig

_BODY = "deep_feature_extraction"
_BLOCK = rf"^{_BODY}\.(\d+)\.body\.(\d+)\."
_BLOCK_NAMES = {
    r"norm[13]\.body": "norm1",
    r"norm[24]\.body": "norm2",
    r"IDynamicDWConv\.conv0": "attention.enter",
    r"IDynamicDWConv\.conv1": "attention.leave",
    r"IDynamicDWConv\.conv\.conv1\.0": "attention.kernels.narrow",
    r"IDynamicDWConv\.conv\.conv1\.1": "attention.kernels.around",
    r"IDynamicDWConv\.conv\.conv2\.0": "attention.kernels.widen",
    r"IDynamicDWConv\.conv": "attention.static",
    r"restormer_attn\.temperature": "attention.temperature",
    r"restormer_attn\.qkv": "attention.qkv",
    r"restormer_attn\.qkv_dwconv": "attention.around",
    r"restormer_attn\.project_out": "attention.proj",
    r"\w+_ffn\.project_in": "ffn.enter",
    r"\w+_ffn\.dwconv": "ffn.around",
    r"\w+_ffn\.project_out": "ffn.leave",
    r"\w+_ffn\.body\.0": "ffn.fc1",
    r"\w+_ffn\.body\.2": "ffn.fc2",
}
_LINEAR = r"(enter|leave|widen|qkv|proj|fc1|fc2)\.weight$"
_NEEDED = ("overlap_embed.0.proj.weight",)


def convert(
    state: Mapping[str, Tensor],
    *,
    activation: str = "relu",
    window: int | str | None = "published",
    image_range: float = 1.0,
) -> tuple[DLGSANetConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``DLGSANet.from_official``.

    Raises:
        CheckpointError: when the file is not a DLGSANet's, or contradicts itself.
    """
    require_family(state, "DLGSANet", _NEEDED)
    dim, channels = state[_NEEDED[0]].shape[:2]
    body_norm = f"{_BODY}.0.body.weight" in state
    places = {(int(m[1]), int(m[2])) for key in state if (m := re.match(_BLOCK + "norm", key))}
    parts = {re.sub(_BLOCK, "", key): value for key, value in state.items()}
    local, sparse = "IDynamicDWConv.conv0.weight" in parts, "restormer_attn.qkv.weight" in parts
    groups, kinds = len({group for group, _ in places}), local + sparse
    if not kinds or len(places) % (groups * kinds):
        raise CheckpointError("a DLGSANet checkpoint with gaps: its groups are not alike")
    if sparse and not local:
        activation = "softmax"
    head = "direct"
    if "conv_last.weight" in state:
        head = "steps" if "upsample.0.weight" in state else "same"
    try:
        scale = upsampling_scale(state)  # of no convolution it is 1
        if head == "direct":
            scale = math.isqrt(len(state["upsample.0.weight"]) // channels)
        if isinstance(window, str):
            window = 48 if activation == "softmax" else CONVERTER.get(scale, 48)
        config = DLGSANetConfig(
            scale=scale,
            channels=channels,
            dim=dim,
            groups=groups,
            blocks=len(places) // groups // kinds,
            local=local,
            activation=activation if sparse else None,
            **_kernels(parts, dim),
            heads=len(parts["restormer_attn.temperature"]) if sparse else 1,
            gated=(_gated(parts, "IDynamic_ffn"), _gated(parts, "restormer_ffn")),
            ratios=(_hidden(parts, "IDynamic_ffn") / dim, _hidden(parts, "restormer_ffn") / dim),
            window=window,
            body_norm=body_norm,
            head=head,
            image_range=image_range,
        )
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"a DLGSANet checkpoint that no DLGSANet fits: {error}") from error
    converted = rename(state, partial(name, config=config))
    for key, value in converted.items():
        if re.search(_LINEAR, key):  # 1x1 convolutions, linear in our layout
            converted[key] = value.flatten(1)
    return config, converted


def name(key: str, config: DLGSANetConfig) -> str:
    """Our name for an entry of the authors' checkpoint of a network of ``config``."""
    if match := re.match(_BLOCK, key):
        group, block = int(match[1]) - config.body_norm, match[2]
        rest = key[match.end() :]
        if rest in ("weight", "bias"):
            return f"groups.{group}.conv.{rest}"
        for theirs, ours in _BLOCK_NAMES.items():
            rest, found = re.subn(rf"^{theirs}(?=\.weight$|\.bias$|$)", ours, rest)
            if found:
                break
        return f"groups.{group}.blocks.{block}.{rest}"
    key = re.sub(rf"^{_BODY}\.0\.body\.", "embed_norm.", key)
    key = re.sub(rf"^{_BODY}\.\d+\.body\.", "norm.", key)
    key = re.sub(rf"^{_BODY}\.\d+\.", "body_conv.", key)
    key = key.replace("overlap_embed.0.proj", "conv_first")
    key = key.replace("conv_before_upsample.0", "before_upsample")
    return key.replace("upsample.0", "conv_last") if config.head == "direct" else key


def _kernels(parts: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    """What there is to know of the local kernels."""
    prefix = "IDynamicDWConv.conv"
    if (static := parts.get(f"{prefix}.weight")) is not None:
        return {"dynamic": False, "kernel": static.shape[-1], "kernel_channels": 1}
    if f"{prefix}.conv1.1.weight" not in parts:
        return {"kernel_channels": 1}
    side = parts[f"{prefix}.conv1.1.weight"].shape[-1]
    groups = len(parts[f"{prefix}.conv2.0.weight"]) // side**2
    return {"kernel": side, "kernel_channels": dim // groups}


def _gated(parts: Mapping[str, Tensor], network: str) -> bool:
    return f"{network}.body.0.weight" not in parts


def _hidden(parts: Mapping[str, Tensor], network: str) -> int:
    """Hidden channels of a feed-forward network; twice the width where there is none."""
    if not _gated(parts, network):
        return len(parts[f"{network}.body.0.weight"])
    if (inside := parts.get(f"{network}.project_out.weight")) is not None:
        return inside.shape[1]
    return 2 * parts[_NEEDED[0]].shape[0]
