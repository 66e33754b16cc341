"""Reading other people's checkpoints: safely, out of their wrappers, and strictly."""

import argparse
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

Checkpoint = str | Path | Mapping[str, Any]
"""A file, or what was loaded from one."""

# Averaged weights first: they are what the published figures were measured with.
WRAPPERS = (
    "params_ema", "params-ema", "state_dict_ema", "model_ema", "ema", "params", "state_dict",
    "model_state_dict", "model", "net", "network", "icnn",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "model.", "netG.")


class CheckpointError(ValueError):
    """A checkpoint that can't be read, or doesn't fit the model."""


def read_checkpoint(
    source: Checkpoint, *, wrapper: str | None = None, strip: bool = True
) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names, without wrapper and common prefix.

    Args:
        source: ``.safetensors``, or anything ``torch.save`` wrote; or a mapping already loaded.
        wrapper: the entry that holds the weights (``"params"``); by default the first of
            ``WRAPPERS`` that is there.
        strip: whether a prefix that all names share (``module.``) is removed.

    Raises:
        CheckpointError: not a checkpoint, no tensors in it, no such wrapper, or a pickle that
            would run code (it is refused unread).
        FileNotFoundError: no such file.
    """
    content = source if isinstance(source, Mapping) else _load(Path(source))
    state = _unwrap(content, wrapper)
    if not state:
        name = "the mapping" if isinstance(source, Mapping) else str(source)
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else content
        raise CheckpointError(f"{name} holds no tensors; its entries: {found or 'none'}")
    for prefix in (*PREFIXES, *PREFIXES) if strip else ():  # twice, as in module._orig_mod.
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load ``state`` into ``model``, every key accounted for.

    Raises:
        CheckpointError: one message that names the missing, unexpected and mis-shaped entries.
    """
    own = model.state_dict()
    shapes = [
        f"{key} {list(state[key].shape)}, the model has {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        _listing("missing", own.keys() - state.keys()),
        _listing("unexpected", state.keys() - own.keys()),
        _listing("of another shape", shapes),
    ]
    if any(problems):
        raise CheckpointError(
            f"the checkpoint does not fit {type(model).__name__}: "
            + "; ".join(filter(None, problems))
        )
    model.load_state_dict(dict(state))


def renew_heads(model: nn.Module, state: Mapping[str, Tensor], *heads: str) -> dict[str, Tensor]:
    """``state`` with ``model``'s own, fresh entries below ``heads``, the class head's first.

    A warning tells both numbers of classes.
    """
    kept = {key: value for key, value in state.items() if not key.startswith(heads)}
    fresh = {key: value for key, value in model.state_dict().items() if key.startswith(heads)}
    was, now = (len(entries.get(f"{heads[0]}bias", ())) for entries in (state, fresh))
    warnings.warn(f"the checkpoint has {was} classes: the head for {now} is new", stacklevel=3)
    return {**fresh, **kept}


def rename(state: Mapping[str, Tensor], name: Callable[[str], str | None]) -> dict[str, Tensor]:
    """``state`` under other names; entries that ``name`` maps to ``None`` are left out."""
    return {new: value for key, value in state.items() if (new := name(key)) is not None}


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    try:
        # Training scripts keep their command line beside the weights; a Namespace is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it is not a plain file of tensors, and loading it could run code "
            f"({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {error}") from error


def _unwrap(content: Any, wrapper: str | None) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    if wrapper is not None:
        if not isinstance(content.get(wrapper), Mapping):
            raise CheckpointError(
                f"the checkpoint has no entry {wrapper!r}; it has {', '.join(map(str, content))}"
            )
        return _unwrap(content[wrapper], None)
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping) and (state := _unwrap(content[name], None)):
            return state
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _listing(title: str, entries: Iterable[str], most: int = 12) -> str:
    entries = sorted(entries)
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return f"{title}: {', '.join(entries[:most])}{more}" if entries else ""
