"""Sets of tokens in which one token carries the pattern of the class."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import TensorDataset


def planted_patterns(
    samples: int, *, tokens: int = 16, channels: int = 8, classes: int = 4, seed: int = 0
) -> tuple[Float[Tensor, "samples tokens channels"], Int[Tensor, " samples"]]:
    """Noise of unit variance; one token of each set has the pattern of its class added.

    The patterns are the same for every seed.
    """
    patterns = 4 * torch.eye(classes, channels)
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, tokens, channels, generator=draw)
    labels = torch.randint(classes, (samples,), generator=draw)
    places = torch.randint(tokens, (samples,), generator=draw)
    x[torch.arange(samples), places] += patterns[labels]
    return x, labels


def dataset(samples: int, *, channels: int = 8, classes: int = 4, seed: int = 0) -> TensorDataset:
    """The same as pairs (tokens, label)."""
    x, labels = planted_patterns(samples, channels=channels, classes=classes, seed=seed)
    return TensorDataset(x, labels)
