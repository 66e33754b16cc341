"""The authors' checkpoints (sunshangquan/Histoformer) -> this model."""

import re
from collections.abc import Callable, Mapping

from attention_core import CheckpointError, rename
from torch import Tensor

from histoformer.model import LEVELS, VARIANTS, HistoformerConfig

_NAMES: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^patch_embed\.proj\.": "embed.",
    r"^encoder_level(\d)\.": lambda level: f"encoder.{int(level[1]) - 1}.",
    r"^latent\.": f"encoder.{LEVELS - 1}.",
    r"^down(\d)_\d\.body\.": lambda level: f"down.{int(level[1]) - 1}.",
    r"^skip_patch_embed(\d)\.proj\.": lambda level: f"skips.{int(level[1]) - 1}.",
    r"^reduce_chan_level_(\d)\.": lambda level: f"merge.{int(level[1]) - 1}.",
    r"^up(\d)_\d\.body\.": lambda level: f"up.{LEVELS - int(level[1])}.",
    r"^reduce_chan_level(\d)\.": lambda level: f"fuse.{LEVELS - 1 - int(level[1])}.",
    r"^decoder_level(\d)\.": lambda level: f"decoder.{LEVELS - 1 - int(level[1])}.",
    r"\battn_g\.": "attention.",
    r"\bqkv_dwconv\.": "mix.",
    r"\bproject_in\.": "expand.",
    r"\bdwconv_5\.": "wide.",
    r"\bdwconv_dilated2_1\.": "dilated.",
    r"\bproject_out\.": "out.",
}
_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
_NEEDED = (
    "patch_embed.proj.weight",
    *(f"{level}.0.attn_g.temperature" for level in _LEVELS),
    "latent.0.ffn.project_out.weight",
    "output.weight",
)


def convert(
    state: Mapping[str, Tensor], *, centred: bool = True
) -> tuple[HistoformerConfig, dict[str, Tensor]]:
    """Configuration and weights; arguments as in ``Histoformer.from_official``.

    Raises:
        CheckpointError: when the file is not a Histoformer's, or contradicts itself.
    """
    if missing := [key for key in _NEEDED if key not in state]:
        raise CheckpointError(
            f"not a Histoformer checkpoint: {', '.join(missing)} missing; "
            f"it starts with {', '.join(list(state)[:5])}"
        )
    dim = len(state["patch_embed.proj.weight"])
    try:
        config = HistoformerConfig(
            dim=dim,
            depths=tuple(_depth(state, level) for level in _LEVELS),
            refinement=_depth(state, "refinement"),
            heads=tuple(len(state[f"{level}.0.attn_g.temperature"]) for level in _LEVELS),
            ffn_ratio=_ratio(dim, state["latent.0.ffn.project_out.weight"].shape[1]),
            bias="output.bias" in state,
            centred=centred,
        )
    except ValueError as error:
        raise CheckpointError(f"a checkpoint that no Histoformer fits: {error}") from error
    return config, rename(state, name)


def name(key: str) -> str | None:
    """Our name for an entry of the authors' checkpoint; ``None`` for the one that is never used."""
    if key.startswith("skip_conv."):
        return None
    for theirs, ours in _NAMES.items():
        key = re.sub(theirs, ours, key)
    return key


def _depth(state: Mapping[str, Tensor], level: str) -> int:
    return sum(
        re.fullmatch(rf"{level}\.\d+\.attn_g\.temperature", key) is not None for key in state
    )


def _ratio(dim: int, hidden: int) -> float:
    """A ratio that gives the lowest level its hidden width, the published one if it does."""
    lowest = dim * 2 ** (LEVELS - 1)
    published = VARIANTS["histoformer"].ffn_ratio
    return published if int(lowest * published) == hidden else (hidden + 0.5) / lowest
