"""The authors' checkpoints (thuml/iTransformer, Time-Series-Library) -> this model."""

import re
from collections.abc import Mapping

import torch
from attention_core import CheckpointError
from torch import Tensor

from itransformer.model import ITransformerConfig

_NAMES = {
    "enc_embedding.value_embedding": "embedding",
    "encoder.norm": "norm",
    "projector": "projection",
    "projection": "projection",  # TSLib's name
}
_LAYER_NAMES = {
    "attention.out_projection": "attention.out",
    "attention.attn.toqk": "attention.query_key",
    "attention.attn.tov": "attention.value",
    "attention.attn.to_out": "attention.out",
    "conv1": "feed_forward.0",
    "conv2": "feed_forward.3",
    "norm1": "attention_norm",
    "norm2": "feed_forward_norm",
}


def convert(
    state: Mapping[str, Tensor],
    *,
    heads: int,
    use_norm: bool,
    marks: int,
    activation: str = "gelu",
    attention: str | None = None,
    factor: int = 1,
    bucket_size: int = 4,
    hashes: int = 4,
    dropout: float = 0.1,
) -> tuple[ITransformerConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``ITransformer.from_official``.

    Raises:
        CheckpointError: when the file is not an iTransformer's, or shows another attention.
    """
    head = "projector" if "projector.weight" in state else "projection"
    needed = ["enc_embedding.value_embedding.weight", f"{head}.weight"]
    needed.append("encoder.attn_layers.0.conv1.weight")
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not an iTransformer checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    hashed = any(".attention.attn.toqk." in key for key in state)
    if attention is not None and (attention == "lsh") != hashed:
        raise CheckpointError(
            f"attention={attention!r}: the checkpoint's layout is "
            + ("that of 'lsh'" if hashed else "that of 'full', 'flow' and 'prob'")
        )
    attention = attention or ("lsh" if hashed else "full")
    dim, lookback = state["enc_embedding.value_embedding.weight"].shape
    layers = {int(m[1]) for key in state if (m := re.match(r"encoder\.attn_layers\.(\d+)\.", key))}
    config = ITransformerConfig(
        lookback=lookback,
        horizon=state[f"{head}.weight"].shape[0],
        dim=dim,
        feed_forward=state["encoder.attn_layers.0.conv1.weight"].shape[0],
        layers=len(layers),
        heads=heads,
        dropout=dropout,
        activation=activation,
        attention=attention,
        use_norm=use_norm or attention != "full",
        marks=marks,
        factor=factor,
        bucket_size=bucket_size,
        hashes=hashes,
    )
    return config, _rename(state)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_name(key): _value(key, value) for key, value in _joint(state).items()}


def _joint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value projections of a layer become one."""
    joint = dict(state)
    for key in state:
        if ".query_projection." in key:
            parts = [key.replace("query", part) for part in ("query", "key", "value")]
            if all(part in state for part in parts):
                joint[key.replace("query_projection", "qkv")] = torch.cat(
                    [joint.pop(part) for part in parts]
                )
    return joint


def _name(key: str) -> str:
    module, _, kind = key.rpartition(".")
    if m := re.fullmatch(r"encoder\.attn_layers\.(\d+)\.(.+)", module):
        return f"layers.{m[1]}.{_LAYER_NAMES.get(m[2], m[2])}.{kind}"
    return f"{_NAMES.get(module, module)}.{kind}"


def _value(key: str, value: Tensor) -> Tensor:
    """The feed-forward network is stored as convolutions of width 1."""
    return value.squeeze(-1) if re.search(r"\.conv[12]\.weight$", key) else value
