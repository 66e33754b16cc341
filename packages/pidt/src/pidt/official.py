"""Checkpoints of transformers -> this model: the Decision Transformer's, and GPT-2's."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_core import CheckpointError, from_dict, read_checkpoint
from torch import Tensor

from pidt.model import PIDTConfig

_NAMES = {
    "embed_ln": "embed_norm",
    "encoder.wpe": "positions",
    "encoder.ln_f": "norm",
    "predict_action.0": "predict_action",
}
_BLOCK = {
    "ln_1": "attention_norm",
    "attn.c_attn": "qkv",
    "attn.c_proj": "out",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "rise",
    "mlp.c_proj": "fall",
}


def convert(
    state: Mapping[str, Tensor],
    *,
    heads: int,
    activation: str = "relu",
    action_tanh: bool = True,
    norm_eps: float = 1e-5,
) -> tuple[PIDTConfig, dict[str, Tensor]]:
    """Configuration and weights of a ``DecisionTransformerModel``'s ``state``.

    Raises:
        CheckpointError: when the entries that tell the sizes are missing.
        ValueError: for heads that don't divide the width, or an unknown activation.
    """
    needed = ("embed_timestep.weight", "embed_state.weight", "embed_action.weight",
              "encoder.wpe.weight", "encoder.h.0.mlp.c_fc.weight")  # fmt: skip
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not a Decision Transformer: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    steps, dim = state["embed_timestep.weight"].shape
    config = PIDTConfig(
        state_dim=state["embed_state.weight"].shape[1],
        actions=state["embed_action.weight"].shape[1],
        dim=dim,
        layers=_layers(state),
        heads=heads,
        inner=_inner(state, "encoder.", dim),
        steps=steps,
        positions=len(state["encoder.wpe.weight"]),
        activation=activation,
        norm_eps=norm_eps,
        action_tanh=action_tanh,
        mask=False,
    )
    return config, _renamed(state)


def read_gpt2(folder: str | Path, sizes: Mapping[str, Any]) -> tuple[PIDTConfig, dict[str, Tensor]]:
    """Configuration and trunk of a GPT-2 that ``save_pretrained`` wrote.

    Raises:
        CheckpointError: when ``config.json`` is missing or not of a GPT-2.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise CheckpointError(f"no GPT-2 at {folder}: it has no config.json")
    told = json.loads(file.read_text())
    if told.get("model_type") != "gpt2":
        raise CheckpointError(f"{folder} holds a {told.get('model_type')}, not a gpt2")
    state = read_checkpoint(Path(folder) / "model.safetensors")
    state = {key.removeprefix("transformer."): value for key, value in state.items()}
    # Some files carry the causal mask, none of ours needs the words.
    trunk = {
        f"encoder.{key}": value
        for key, value in state.items()
        if key.startswith(("h.", "ln_f.", "wpe."))
        and not key.endswith(("attn.bias", "masked_bias"))
    }
    dim = told["n_embd"]
    fields = {
        "dim": dim,
        "layers": told["n_layer"],
        "heads": told["n_head"],
        "inner": _inner(trunk, "encoder.", dim),
        "positions": len(trunk["encoder.wpe.weight"]),
        "activation": told["activation_function"],
        "norm_eps": told["layer_norm_epsilon"],
        **sizes,
    }
    return from_dict(PIDTConfig, fields), _renamed(trunk)


def _layers(state: Mapping[str, Tensor]) -> int:
    return 1 + max(int(m[1]) for key in state if (m := re.match(r"encoder\.h\.(\d+)\.", key)))


def _inner(state: Mapping[str, Tensor], prefix: str, dim: int) -> int | None:
    """The feed-forward width; ``None`` where it is the usual one."""
    inner = state[f"{prefix}h.0.mlp.c_fc.weight"].shape[1]
    return None if inner == 4 * dim else inner


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; GPT-2's maps are [in, out]. An unknown key stays, for the strict load to name."""
    found = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        if block := re.fullmatch(r"encoder\.h\.(\d+)\.(.+)", module):
            part = _BLOCK.get(block[2], block[2])
            transposed = kind == "weight" and value.ndim == 2
            found[f"blocks.{block[1]}.{part}.{kind}"] = value.T if transposed else value
        elif key == "encoder.wte.weight":
            found["words"] = value
        else:
            found[f"{_NAMES.get(module, module)}.{kind}"] = value
    return found
