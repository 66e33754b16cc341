"""The authors' checkpoints (nyuolab/Gateformer) -> this model."""

import re
from collections.abc import Mapping

from attention_core import CheckpointError, rename
from einops import rearrange
from torch import Tensor

from gateformer.model import GateformerConfig

_NAMES = {
    "patch_embedding.value_embedding": "temporal.embedding",
    "head.linear": "temporal.head",
    "project_embedding.value_embedding": "window_embedding",
    "gate_w1": "embedding_gate.first",
    "gate_w2": "embedding_gate.second",
    "gate_w3": "interaction_gate.first",
    "gate_w4": "interaction_gate.second",
    "projection": "projection",
}
_ENCODERS = {"enc_temporal": "temporal.encoder", "enc_variate": "variate_encoder"}
LAYER_NAMES = {
    "self_attn.in_proj_weight": "qkv.weight",
    "self_attn.in_proj_bias": "qkv.bias",
    "self_attn.out_proj.weight": "out.weight",
    "self_attn.out_proj.bias": "out.bias",
    "linear1.weight": "feed_forward.0.weight",
    "linear1.bias": "feed_forward.0.bias",
    "linear2.weight": "feed_forward.3.weight",
    "linear2.bias": "feed_forward.3.bias",
    "norm1.weight": "attention_norm.weight",
    "norm1.bias": "attention_norm.bias",
    "norm2.weight": "feed_forward_norm.weight",
    "norm2.bias": "feed_forward_norm.bias",
}
"""An encoder layer's entries: the authors' is ``torch.nn.TransformerEncoderLayer``."""


def convert(
    state: Mapping[str, Tensor], *, heads: int, stride: int | None = None, dropout: float = 0.1
) -> tuple[GateformerConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``Gateformer.from_official``.

    Raises:
        CheckpointError: when the file is not a Gateformer's, or its patches fit no stride or
            several.
    """
    needed = [f"{name}.weight" for name in _NAMES] + ["enc_temporal.layers.0.linear1.weight"]
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not a Gateformer checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    dim, patch = state["patch_embedding.value_embedding.weight"].shape
    lookback = state["project_embedding.value_embedding.weight"].shape[1]
    patches = state["head.linear.weight"].shape[1] // dim
    depths = [int(m[1]) for key in state if (m := re.match(r"enc_temporal\.layers\.(\d+)\.", key))]
    config = GateformerConfig(
        lookback=lookback,
        horizon=len(state["projection.weight"]),
        patch=patch,
        stride=_stride(stride, lookback, patch, patches),
        dim=dim,
        feed_forward=len(state["enc_temporal.layers.0.linear1.weight"]),
        layers=max(depths) + 1,
        heads=heads,
        dropout=dropout,
    )
    weights = rename(state, _name)
    # The authors flatten channel by channel; here patches stay whole, which spares a copy.
    weights["temporal.head.weight"] = rearrange(
        weights["temporal.head.weight"], "out (dim patches) -> out (patches dim)", dim=dim
    )
    return config, weights


def _stride(stride: int | None, lookback: int, patch: int, patches: int) -> int:
    def fits(step: int) -> bool:
        return step > 0 and (lookback + step - patch) // step + 1 == patches

    possible = [step for step in range(1, lookback + 1) if fits(step)]
    if stride is None and len(possible) == 1:
        return possible[0]
    if stride is None or not fits(stride):
        told = "not told" if stride is None else str(stride)
        listed = ", ".join(map(str, possible)) or "none"
        raise CheckpointError(
            f"stride {told}: the file has {patches} patches of {patch} steps for a lookback of "
            f"{lookback}, which fit the strides {listed}"
        )
    return stride


def _name(key: str) -> str | None:
    if key == "patch_embedding.position_embedding.pe":  # computed, not learned
        return None
    if m := re.fullmatch(r"(enc_temporal|enc_variate)\.layers\.(\d+)\.(.+)", key):
        return f"{_ENCODERS[m[1]]}.{m[2]}.{LAYER_NAMES.get(m[3], m[3])}"
    module, _, kind = key.rpartition(".")
    return f"{_NAMES.get(module, module)}.{kind}"
