"""The authors' checkpoints (DearCaat/RRT-MIL) -> these models."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from attention_core import CheckpointError, replace
from torch import Tensor

from rrt_mil.encoder import R2TConfig
from rrt_mil.model import VARIANTS, R2TMILConfig

State = Mapping[str, Tensor]

_ENCODER = re.compile(r"(.*?)(?:layers\.\d+|cr_msa)\.norm\.weight")
_ENCODER_NAMES = {
    r"layers\.(\d+)\.norm": r"layers.\1.norm",
    r"layers\.(\d+)\.norm2": r"layers.\1.mlp.0",
    r"layers\.(\d+)\.mlp\.fc1": r"layers.\1.mlp.1",
    r"layers\.(\d+)\.mlp\.fc2": r"layers.\1.mlp.4",
    r"layers\.(\d+)\.attn\.attn\.qkv": r"layers.\1.attention.attention.qkv",
    r"layers\.(\d+)\.attn\.attn\.proj": r"layers.\1.attention.attention.out",
    r"layers\.(\d+)\.attn\.attn\.pe": r"layers.\1.attention.attention.position",
    r"cr_msa\.norm": "cross.norm",
    r"cr_msa\.norm2": "cross.mlp.0",
    r"cr_msa\.mlp\.fc1": "cross.mlp.1",
    r"cr_msa\.mlp\.fc2": "cross.mlp.4",
    r"cr_msa\.attn\.attn\.qkv": "cross.attention.attention.qkv",
    r"cr_msa\.attn\.attn\.proj": "cross.attention.attention.out",
    r"cr_msa\.attn\.phi(\.\d)?": r"cross.attention.phi\1",
    r"pos_embedding\.proj": "position.convolutions.0",
    r"pos_embedding\.proj1": "position.convolutions.1",
    r"pos_embedding\.proj2": "position.convolutions.2",
}
_POOLING = r"(?:pool_fn\.attention\.|attention_net\.\d\.)?"
_NAMES = {
    r"(?:patch_to_emb|feature|attention_net|embedding\.embed|head)\.0": "projection",
    _POOLING + r"(?:attention|attention_a|module)\.0": "aggregator.scores.hidden",
    _POOLING + r"attention_b\.0": "aggregator.scores.gate",
    _POOLING + r"(?:(?:attention|module)\.[23]|attention_c)": "aggregator.scores.score",
    r"predictor|classifier\.0|classifiers|head|head\.\d|b_classifier\.fcc": "aggregator.classifier",
    r"instance_classifiers\.(\d+)": r"aggregator.instance_classifiers.\1",
    r"i_classifier": "aggregator.instance_classifier",
    r"b_classifier\.q|W_q": "aggregator.query",
    r"W_k": "aggregator.key",
}


def encoder_state(state: State) -> dict[str, Tensor]:
    """The entries of R²T in the state of any model of the authors, under ``RRTEncoder``'s names.

    Raises:
        CheckpointError: when there are none.
    """
    prefix = _prefix(state)
    if prefix is None:
        raise CheckpointError(f"no R²T in this checkpoint; it starts with {_start(state)}")
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def convert_encoder(
    state: State, base: R2TConfig | None = None, **settings: Any
) -> tuple[R2TConfig, dict[str, Tensor]]:
    """Configuration and weights of R²T; ``base`` and ``settings`` give what tensors don't show.

    Raises:
        CheckpointError: when the entries are not an ``RRTEncoder``'s.
        ValueError: for an unknown field among ``settings``.
    """
    config = replace(base or R2TConfig(), **_seen_encoder(state, settings), **settings)
    weights = {}
    for key, value in state.items():
        name = _rename(key, _ENCODER_NAMES)
        if config.epeg == "logits":
            name = name.replace("attention.position.weight", "attention.taps")
            name = name.replace("attention.position.bias", "attention.bias")
        if name == "cross.attention.phi":
            name, value = "cross.attention.phi.weight", value.T
        weights[name] = value
    if config.epeg == "logits":  # a run without this bias: it does nothing
        for layer in range(config.layers - 1):
            bias = f"layers.{layer}.attention.attention.bias"
            weights.setdefault(bias, torch.zeros(config.heads))
    return config, weights


def convert(
    state: State,
    *,
    variant: str | None = None,
    encoder: Mapping[str, Any] | None = None,
    confounders: Tensor | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[R2TMILConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``R2TMIL.from_official``.

    Raises:
        CheckpointError: when the file is of none of the authors' models.
        ValueError: for an unknown variant or field.
    """
    if variant is not None and variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}; there is {', '.join(VARIANTS)}")
    # CLAM's loss keeps a table of class numbers beside the weights.
    rest = {key: value for key, value in state.items() if key != "instance_loss_fn.labels"}
    weights: dict[str, Tensor] = {}
    aggregator, base = _aggregator(state)
    base = VARIANTS[variant] if variant else base
    if confounders is None:
        confounders = rest.pop("confounder_feat", None)
    config_encoder = None
    if (prefix := _prefix(state)) is not None:
        config_encoder, converted = convert_encoder(
            encoder_state(state), base.encoder, **(encoder or {})
        )
        place = "instance_encoder" if aggregator == "dsmil" else "encoder"
        weights = {f"{place}.{key}": value for key, value in converted.items()}
        rest = {key: value for key, value in rest.items() if not key.startswith(prefix)}
    if aggregator == "clam_mb":
        rest = _stack(rest, "classifiers")
    weights |= {_rename(key, _NAMES): value for key, value in rest.items()}
    if aggregator == "dsmil":
        weights["aggregator.classifier.weight"] = weights["aggregator.classifier.weight"].flatten(1)
    if aggregator == "ibmil":
        if confounders is None:
            raise CheckpointError("IBMIL needs its confounders: the file has no confounder_feat")
        weights["aggregator.confounders"] = confounders
    seen = _seen(weights)
    seen["confounders"] = (
        len(confounders) if aggregator == "ibmil" and confounders is not None else 0
    )
    told = {"aggregator": aggregator, **(settings or {})}
    if told["aggregator"] not in {aggregator, *(("max",) if aggregator == "mean" else ())}:
        raise CheckpointError(
            f"aggregator={told['aggregator']!r}: this is a {aggregator} checkpoint"
        )
    return replace(base, encoder=config_encoder, **seen, **told), weights


def _aggregator(state: State) -> tuple[str, R2TMILConfig]:
    """Which aggregator the layout is of, and what its runs have in common."""
    if "b_classifier.q.weight" in state:
        return "dsmil", VARIANTS["r2t_dsmil"]
    if "attention_net.0.weight" in state:
        kind = "clam_mb" if "classifiers.0.weight" in state else "clam_sb"
        return kind, VARIANTS[f"r2t_{kind}"]
    if "W_q.weight" in state:
        return "ibmil", VARIANTS["r2t_ibmil"]
    if "head.0.weight" in state:
        return "mean", VARIANTS["r2t_mean"]
    if "attention_a.0.weight" in state:
        return "abmil", VARIANTS["r2t_gated_abmil"]
    if any(key.startswith(("pool_fn.", "attention.")) for key in state):
        return "abmil", R2TMILConfig()
    raise CheckpointError(
        f"not a checkpoint of R²T-MIL or of its aggregators; it starts with {_start(state)}"
    )


def _seen(weights: State) -> dict[str, Any]:
    """The fields of `R2TMILConfig` that the tensors show."""
    needed = ("projection.weight", "aggregator.classifier.bias")
    if missing := [key for key in needed if key not in weights]:
        raise CheckpointError(f"no {', '.join(missing)} in this checkpoint: {_start(weights)}")
    dim, features = weights["projection.weight"].shape
    seen = {"features": features, "dim": dim, "classes": len(weights["aggregator.classifier.bias"])}
    if (hidden := weights.get("aggregator.scores.hidden.weight")) is not None:
        seen["attention_dim"] = len(hidden)
        seen["attention_bias"] = "aggregator.scores.hidden.bias" in weights
        seen["gated"] = "aggregator.scores.gate.weight" in weights
    elif (query := weights.get("aggregator.query.weight")) is not None:
        seen["attention_dim"] = len(query)
    return seen


def _seen_encoder(state: State, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `R2TConfig` that the tensors show."""
    if "norm.weight" not in state:
        raise CheckpointError(f"not R²T's entries: no norm.weight among {_start(state)}")
    dim = len(state["norm.weight"])
    depth = len({m[1] for key in state if (m := re.match(r"layers\.(\d+)\.", key))})
    first = "layers.0" if depth else "cr_msa"
    seen: dict[str, Any] = {
        "dim": dim,
        "layers": depth + 1,
        "cr_msa": "cr_msa.norm.weight" in state,
        "qkv_bias": f"{first}.attn.attn.qkv.bias" in state,
        "crmsa_mlp": "cr_msa.attn.phi.0.weight" in state,
    }
    taps = state.get("layers.0.attn.attn.pe.weight")
    if taps is not None:
        seen |= {"epeg_k": taps.shape[2], "epeg_2d": taps.shape[3] > 1}
        if len(taps) == dim and "epeg" not in settings:
            raise CheckpointError(
                "position encoding of values: say epeg='value' (before the attention) or 'output'"
            )
        if len(taps) == dim:
            seen["epeg_bias"] = "layers.0.attn.attn.pe.bias" in state
        else:
            seen |= {"epeg": "logits", "heads": len(taps)}
    elif depth:
        seen["epeg"] = "none"
    if "cr_msa.attn.phi" in state:
        seen["crmsa_k"] = state["cr_msa.attn.phi"].shape[1]
    elif seen["crmsa_mlp"]:
        seen["crmsa_k"] = len(state["cr_msa.attn.phi.2.weight"])
    if (hidden := state.get(f"{first}.mlp.fc1.weight")) is not None:
        seen["mlp_ratio"] = len(hidden) / dim
    if (kernel := state.get("pos_embedding.proj.weight")) is not None:
        seen |= {
            "position": "ppeg" if "pos_embedding.proj1.weight" in state else "peg",
            "position_k": kernel.shape[2],
            "position_1d": kernel.shape[3] < kernel.shape[2],
            "position_bias": "pos_embedding.proj.bias" in state,
        }
    return {name: value for name, value in seen.items() if name not in settings}


def _prefix(state: State) -> str | None:
    found = sorted((m[1] for key in state if (m := _ENCODER.fullmatch(key))), key=len)
    return found[0] if found else None


def _stack(state: State, name: str) -> dict[str, Tensor]:
    """Linear maps ``name.0``, ``name.1``, ... as one of as many outputs."""
    stacked = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
    for kind in ("weight", "bias"):
        count = sum(bool(re.fullmatch(rf"{name}\.\d+\.{kind}", key)) for key in state)
        stacked[f"{name}.{kind}"] = torch.cat([state[f"{name}.{i}.{kind}"] for i in range(count)])
    return stacked


def _rename(key: str, names: Mapping[str, str]) -> str:
    """The new name of the module that ``key`` belongs to; an unknown key stays as it is."""
    module, dot, kind = key.rpartition(".")
    for pattern, name in names.items():
        if found := re.fullmatch(pattern, module):
            return found.expand(name) + dot + kind
        if found := re.fullmatch(pattern, key):  # a bare parameter
            return found.expand(name)
    return key


def _start(state: State) -> str:
    return ", ".join(list(state)[:5])
