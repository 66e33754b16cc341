"""The authors' checkpoints (qhfan/RMT: classifier, token labelling, detector, segmenter) -> RMT."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from attention_core import CheckpointError, rename
from torch import Tensor

from rmt.model import VARIANTS, EncoderConfig, RMTConfig

C = TypeVar("C", bound=EncoderConfig)

_NAMES = {
    **{f"patch_embed.proj.{i}": f"stem.{i // 3 * 2}.{i % 3}" for i in (0, 1, 3, 4, 6, 7, 9, 10)},
    "downsample.reduction": "downsample.0",
    "downsample.norm": "downsample.1",
    "pos.conv": "position",
    "retention_layer_norm": "attention_norm",
    "retention.query_key": "attention.query_key",
    "retention.v_proj": "attention.value",
    "retention.lepe.conv": "attention.local_context",
    "retention.out_proj": "attention.out",
    "final_layer_norm": "feed_forward_norm",
    "ffn.fc1": "feed_forward.0",
    "ffn.dwconv.conv": "feed_forward.2",
    "ffn.fc2": "feed_forward.3",
    "gamma_1": "attention_scale",
    "gamma_2": "feed_forward_scale",
    "proj": "head.projection",
    "norm": "head.norm",
    "head": "classifier",
    "aux_head": "token_classifier",
    **{f"extra_norms.{i}": f"norms.{i}" for i in range(10)},
}
"""Modules: theirs -> ours, inside a stage or block where they stand in one."""
_BACK = {ours: theirs for theirs, ours in _NAMES.items()}
_HEADS = ("proj.", "norm.", "head.", "aux_head.")


def convert(
    state: Mapping[str, Tensor],
    kind: type[C],
    *,
    heads: Sequence[int] | None = None,
    decay_start: Sequence[float] | None = None,
    decay_spread: Sequence[float] | None = None,
    decomposed: Sequence[bool] | None = None,
    drop_path: float | None = None,
    token_labels: bool | None = None,
    out_indices: Sequence[int] | None = None,
    frozen_batch_norm: bool = False,
) -> tuple[C, dict[str, Tensor]]:
    """Configuration of ``kind`` and weights; arguments as in ``from_official`` of its model.

    Raises:
        CheckpointError: when the file is not RMT's, or has a token head of another size.
        ValueError: for a setting that must be given.
    """
    if any(key.startswith("backbone.") for key in state):  # a detector or a segmenter
        state = {
            k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")
        }
    needed = ("patch_embed.proj.0.weight", "layers.0.blocks.0.ffn.fc1.weight")
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not an RMT checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    sizes = _sizes(state)
    given = {
        "heads": heads,
        "decay_start": decay_start,
        "decay_spread": decay_spread,
        "decomposed": decomposed,
    }
    told = {**_published(sizes), **_relative_positions(state)}
    told |= {name: tuple(value) for name, value in given.items() if value is not None}
    if unknown := [name for name in given if name not in told]:
        raise ValueError(
            f"neither the checkpoint nor a published variant of dims {sizes['dims']} and depths "
            f"{sizes['depths']} tells {', '.join(unknown)}: give them by keyword"
        )
    if drop_path is not None:
        told["drop_path"] = drop_path
    state = dict(state)
    if kind is RMTConfig:
        if token_labels is False:
            state = {k: v for k, v in state.items() if not k.startswith("aux_head.")}
        told |= _heads(state, sizes["dims"][-1])
    else:
        state = {k: v for k, v in state.items() if not k.startswith(_HEADS)}
        stages = range(len(sizes["dims"]))
        indices = tuple(stages if out_indices is None else out_indices)
        told |= {"out_indices": indices, "frozen_batch_norm": frozen_batch_norm}
        state = _norms(state, sizes["dims"], indices)
    return kind(**sizes, **told), from_official_names(state)


def from_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' entries under this model's names, without buffers that can be recomputed."""
    joint: dict[str, Tensor] = {}
    for key, value in state.items():
        if m := re.fullmatch(r"(.+\.retention\.)([qk])_proj\.(weight|bias)", key):
            parts = [f"{m[1]}{part}_proj.{m[3]}" for part in "qk"]
            if not all(part in state for part in parts):
                joint[key] = value  # reported when it is loaded
            elif m[2] == "q":
                joint[f"{m[1]}query_key.{m[3]}"] = torch.cat([state[part] for part in parts])
        elif key.endswith(("gamma_1", "gamma_2")):
            joint[key] = value.flatten()
        elif ".Relpos." not in key:
            joint[key] = value
    for key in list(joint):  # files may come without the counters
        if key.endswith(".running_mean"):
            counter = key.replace("running_mean", "num_batches_tracked")
            joint.setdefault(counter, torch.tensor(0))
    return rename(joint, lambda key: _translate(key, _NAMES, "stages"))


def to_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This model's entries, or their gradients, under the authors' names and in their shapes."""
    theirs: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _translate(key, _BACK, "layers")
        if ".retention.query_key." in name:
            for part, each in zip("qk", value.chunk(2), strict=True):
                theirs[name.replace("query_key", f"{part}_proj")] = each
        elif name.endswith(("gamma_1", "gamma_2")):
            theirs[name] = value[None, None, None]
        else:
            theirs[name] = value
    return theirs


def _translate(key: str, names: Mapping[str, str], root: str) -> str:
    place, rest = "", key
    if m := re.match(r"(?:layers|stages)(\.\d+\.(?:blocks\.\d+\.)?)", key):
        place, rest = root + m[1], key[m.end() :]
    module, _, kind = rest.rpartition(".")
    return place + (names.get(rest) or f"{names.get(module, module)}.{kind}")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors' shapes tell."""
    blocks = [
        (int(m[1]), int(m[2]))
        for key in state
        if (m := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.ffn\.fc1\.weight", key))
    ]
    stages = range(1 + max(stage for stage, _ in blocks))
    hidden = [state[f"layers.{i}.blocks.0.ffn.fc1.weight"].shape for i in stages]
    return {
        "channels": state["patch_embed.proj.0.weight"].shape[1],
        "dims": tuple(dim for _, dim in hidden),
        "depths": tuple(1 + max(j for i, j in blocks if i == stage) for stage in stages),
        "mlp_ratios": tuple(size / dim for size, dim in hidden),
        "layer_scale": tuple(f"layers.{i}.blocks.0.gamma_1" in state for i in stages),
    }


def _published(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """What the published variant of the same widths and depths has that shapes don't tell."""
    for config in VARIANTS.values():
        if config.dims == sizes["dims"] and config.depths == sizes["depths"]:
            names = ("heads", "decay_start", "decay_spread", "decomposed", "drop_path")
            return {name: getattr(config, name) for name in names}
    return {}


def _relative_positions(state: Mapping[str, Tensor]) -> dict[str, tuple]:
    """Heads and decay, where the file holds the buffer with each head's logarithm of it."""
    pattern = r"layers\.(\d+)\.Relpos\.decay"
    decays = {int(m[1]): v for key, v in state.items() if (m := re.fullmatch(pattern, key))}
    if not decays:
        return {}
    exponents = [-torch.log2(-torch.expm1(decays[i].double())) for i in sorted(decays)]
    return {
        "heads": tuple(len(e) for e in exponents),
        "decay_start": tuple(round(e[0].item(), 3) for e in exponents),
        "decay_spread": tuple(
            round((e[-1] - e[0]).item() * len(e) / max(1, len(e) - 1), 3) for e in exponents
        ),
    }


def _heads(state: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    if "proj.weight" not in state:
        raise CheckpointError(
            "the checkpoint has no classifier: it is a backbone's, for RMTBackbone.from_official"
        )
    aux = state.get("aux_head.weight")
    if aux is not None and aux.shape[1] != dim:
        raise CheckpointError(
            f"aux_head takes {aux.shape[1]} features, the published code's takes the {dim} of the "
            "last stage; token_labels=False loads the checkpoint without this head"
        )
    return {
        "projection": len(state["proj.weight"]),
        "classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "token_labels": aux is not None,
    }


def _norms(
    state: dict[str, Tensor], dims: Sequence[int], indices: Sequence[int]
) -> dict[str, Tensor]:
    """The state with a norm for exactly the maps that are returned, new ones where it has none."""
    kept = {k: v for k, v in state.items() if not k.startswith("extra_norms.")}
    for i in indices:
        if i in range(len(dims)):
            fresh = {"weight": torch.ones(dims[i]), "bias": torch.zeros(dims[i])}
            for kind, value in fresh.items():
                key = f"extra_norms.{i}.{kind}"
                kept[key] = state.get(key, value)
    return kept
