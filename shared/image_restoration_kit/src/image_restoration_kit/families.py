"""Whose checkpoint a file is: entries that only one of the super-resolution networks has."""

import re
from collections.abc import Iterable, Mapping

from attention_core import CheckpointError
from torch import Tensor

FAMILIES = {
    "CRAFT": r"\.hf_blocks\.\d+\.attn\.temperature$",
    "DLGSANet": r"\.IDynamicDWConv\.",
    "DRCT": r"^layers\.\d+\.swin1\.",
    "HAT": r"\.overlap_attn\.",
    "RAT": r"^middle_blks\.\d+\.layers\.\d+\.lambda_ra$",
    "RGT": r"\.attn\.reduction1\.",
}
"""Network (its package has the same name in lower case) -> pattern of entries that it alone has."""


def family(keys: Iterable[str]) -> str | None:
    """The network whose authors' checkpoint has these entries, if it is one of ours."""
    keys = list(keys)
    for network, pattern in FAMILIES.items():
        if any(re.search(pattern, key) for key in keys):
            return network
    return None


def require_family(state: Mapping[str, Tensor], network: str, needed: Iterable[str]) -> None:
    """Raise ``CheckpointError`` unless ``state`` has every entry that ``network`` needs.

    The message names the network and the package that the file belongs to, if known.
    """
    missing = [key for key in needed if key not in state]
    if not missing:
        return
    found = family(state)
    if found and found != network:
        raise CheckpointError(
            f"not a {network} checkpoint but one of {found}: the package {found.lower()} loads it"
        )
    raise CheckpointError(
        f"not a {network} checkpoint: {', '.join(missing)} missing; "
        f"it starts with {', '.join(list(state)[:5])}"
    )
