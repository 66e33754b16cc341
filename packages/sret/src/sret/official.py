"""The authors' checkpoints (szq0214/SReT) -> SReT, and back."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from attention_core import CheckpointError
from torch import Tensor

from sret.model import STRIDE, VARIANTS, SReTConfig, resample

_NAMES = {
    "pos_embed": "positions",
    **{f"patch_embed.conv{i + 1}": f"stem.{i}.0" for i in range(3)},
    **{f"patch_embed.bn{i + 1}": f"stem.{i}.1" for i in range(3)},
    "head": "classifier",
}
"""Modules and tables outside the stages: theirs -> ours."""
_BLOCK = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "mlp_norm",
    "mlp.fc1": "mlp.hidden",
    "mlp.fc2": "mlp.out",
}
_PROJECTION = {"norm1": "norm", "mlp.fc1": "mlp.hidden", "mlp.fc2": "mlp.out"}
_PLACE = re.compile(r"transformers\.(\d+)\.blocks\.(\d+)\.(.+)")
_OURS = re.compile(r"stages\.(\d+)\.(blocks|projections)\.(\d+)\.(.+)")


def convert(
    state: Mapping[str, Tensor],
    *,
    image_size: tuple[int, int] | int | None = None,
    sliced: bool = True,
    slices: Sequence[int] | None = None,
    recursive_slices: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    shared_blocks: Sequence[int] | None = None,
    drop_path: float = 0.0,
) -> tuple[SReTConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``SReT.from_official``.

    Raises:
        CheckpointError: when the file is not SReT's, or repetitions of a shared block differ.
        ValueError: for a setting that must be given.
    """
    needed = ("pos_embed", "patch_embed.conv1.weight", "transformers.0.blocks.0.mlp.fc1.weight")
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"not an SReT checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    told = _sizes(state)
    published = _published(told)
    if published is not None:
        told |= {name: getattr(published, name) for name in ("mlp_ratio", "projection_ratio")}
    ones = (1,) * len(told["dims"])
    given = {
        "heads": heads,
        "shared_blocks": shared_blocks or getattr(published, "shared_blocks", _shared(state, told)),
        "slices": slices if sliced else ones,
        "recursive_slices": recursive_slices if sliced else ones,
    }
    for name, value in given.items():
        if value is None and published is None:
            raise ValueError(
                f"neither the checkpoint nor a published variant of dims {told['dims']} and depths "
                f"{told['depths']} tells {name}: give it by keyword"
            )
        told[name] = getattr(published, name) if value is None else tuple(value)
    height, width = (STRIDE * side for side in state["pos_embed"].shape[2:])
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    target = (height, width) if size is None else (size[0], size[1])
    config = SReTConfig(**told, image_size=target, drop_path=drop_path)
    ours = from_official_names(state, config)
    ours["positions"] = resample(ours["positions"], config.grids(target)[0])
    return config, ours


def from_official_names(state: Mapping[str, Tensor], config: SReTConfig) -> dict[str, Tensor]:
    """The authors' entries under this model's names, each shared block once.

    Raises:
        CheckpointError: naming an entry whose repetition differs.
    """
    ours: dict[str, Tensor] = {}
    for key, value in _joined(state).items():
        place, names = _place(key, config)
        name = place + _renamed(key.removeprefix(_official_place(key)), names)
        if name in ours and not ours[name].equal(value):
            raise CheckpointError(f"{key} differs from the block that it should repeat")
        ours.setdefault(name, value)
    for key in list(ours):  # files may come without the counters
        if key.endswith(".running_mean"):
            counter = key.replace("running_mean", "num_batches_tracked")
            ours.setdefault(counter, torch.tensor(0))
    return ours


def to_official_names(
    state: Mapping[str, Tensor], config: SReTConfig, *, repeat: bool = True
) -> dict[str, Tensor]:
    """This model's entries, or their gradients, under the authors' names.

    Args:
        state: the entries.
        config: of the network.
        repeat: list a shared block at every place where it is applied, as the authors' code wants
            it; else at the first.
    """
    theirs: dict[str, Tensor] = {}
    outer = {ours: name for name, ours in _NAMES.items()}
    for key, value in state.items():
        if not (m := _OURS.fullmatch(key)):
            theirs[_renamed(re.sub(r"^downsamples\.(\d+)", r"pools.\1.conv", key), outer)] = value
            continue
        stage, number, projection = int(m[1]), int(m[3]), m[2] == "projections"
        names = {o: n for n, o in (_PROJECTION if projection else _BLOCK).items()}
        loops = config.depths[stage] // config.shared_blocks[stage]
        places = [2 * number + 1]
        if not projection:
            places = [2 * (number * loops + i) for i in range(loops if repeat else 1)]
        for place in places:
            prefix = f"transformers.{stage}.blocks.{place}."
            if m[4] == "weights":
                for i, each in enumerate(value.split(1)):
                    theirs[f"{prefix}coefficient{i + 1}.bias"] = each
            else:
                theirs[prefix + _renamed(m[4], names)] = value
    return theirs


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with the coefficients of each block in one entry."""
    joined: dict[str, Any] = {}
    for key, value in state.items():
        if m := re.fullmatch(r"(.+\.)coefficient(\d)\.bias", key):
            joined.setdefault(f"{m[1]}weights", {})[int(m[2])] = value
        else:
            joined[key] = value
    return {
        key: torch.cat([value[i] for i in sorted(value)]) if isinstance(value, dict) else value
        for key, value in joined.items()
    }


def _official_place(key: str) -> str:
    m = _PLACE.fullmatch(key)
    return key[: m.start(3)] if m else ""


def _place(key: str, config: SReTConfig) -> tuple[str, Mapping[str, str]]:
    """Where our model keeps what the authors have at ``key``, and the names inside."""
    if m := re.match(r"pools\.(\d+)\.conv", key):
        return "", {m[0]: f"downsamples.{m[1]}"}
    if not (m := _PLACE.fullmatch(key)):
        return "", _NAMES
    stage, application = int(m[1]), int(m[2]) // 2
    if int(m[2]) % 2:
        return f"stages.{stage}.projections.{application}.", _PROJECTION
    loops = config.depths[stage] // config.shared_blocks[stage]
    return f"stages.{stage}.blocks.{application // loops}.", _BLOCK


def _renamed(key: str, names: Mapping[str, str]) -> str:
    module, _, kind = key.rpartition(".")
    return names.get(key) or f"{names.get(module, module)}.{kind}".lstrip(".")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors' shapes tell."""
    places = [(int(m[1]), int(m[2])) for key in state if (m := _PLACE.fullmatch(key))]
    stages = range(1 + max(stage for stage, _ in places))
    shapes = [
        [state[f"transformers.{i}.blocks.{j}.mlp.fc1.weight"].shape for i in stages] for j in (0, 1)
    ]
    # Sizes were rounded down: the largest quotient gives each of them back.
    ratios = [max(hidden / dim for hidden, dim in each) for each in shapes]
    return {
        "channels": state["patch_embed.conv1.weight"].shape[1],
        "classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "dims": tuple(dim for _, dim in shapes[0]),
        "depths": tuple((1 + max(j for i, j in places if i == stage)) // 2 for stage in stages),
        "mlp_ratio": ratios[0],
        "projection_ratio": ratios[1],
    }


def _published(sizes: Mapping[str, Any]) -> SReTConfig | None:
    """The first published network with these widths, depths and hidden sizes."""

    def hidden(ratios: Mapping[str, float]) -> list[int]:
        both = ratios["mlp_ratio"], ratios["projection_ratio"]
        return [int(dim * ratio + 1e-6) for dim in sizes["dims"] for ratio in both]

    for config in VARIANTS.values():
        same = config.dims == sizes["dims"] and config.depths == sizes["depths"]
        if same and hidden(vars(config)) == hidden(sizes):
            return config
    return None


def _shared(state: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> tuple[int, ...]:
    """Blocks of each stage that neither lack nor repeat the one before."""
    counts = []
    for stage, depth in enumerate(sizes["depths"]):
        keys = [f"transformers.{stage}.blocks.{2 * i}.attn.qkv.weight" for i in range(depth)]
        present = [key for key in keys if key in state]
        repeated = [a for a, b in pairwise(present) if state[a].equal(state[b])]
        counts.append(len(present) - len(repeated))
    return tuple(counts)
