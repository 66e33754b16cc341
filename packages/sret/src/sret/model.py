"""Sliced Recursive Transformer: configuration, published variants, architecture."""

from dataclasses import dataclass
from typing import Self

import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    PaperModel,
    attend,
    read_checkpoint,
    require,
    require_positive,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SretConfig:
    """Sizes of the network."""

    channels: int = 8
    """Width of an input token."""
    dim: int = 32
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 2
    classes: int = 4

    def __post_init__(self) -> None:
        require_positive(self, "channels", "dim", "depth", "heads", "mlp_ratio", "classes")
        require(self, "heads", self.dim % self.heads == 0, f"must divide dim={self.dim}")


VARIANTS = {
    "sret_s": SretConfig(),
    "sret_b": SretConfig(dim=64, depth=4),
}
"""The published configurations."""


class Attention(nn.Module):
    """Multi-head self-attention over the tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        split = "batch tokens (three heads dim) -> three batch heads tokens dim"
        query, key, value = rearrange(self.qkv(x), split, three=3, heads=self.heads)
        attended = attend(query, key, value)
        return self.out(rearrange(attended, "batch heads tokens dim -> batch tokens (heads dim)"))


class Block(nn.Module):
    """Attention, then a feed-forward network on each token, both pre-norm."""

    def __init__(self, config: SretConfig) -> None:
        super().__init__()
        dim = config.dim
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, config.heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.rise = nn.Linear(dim, config.mlp_ratio * dim)
        self.fall = nn.Linear(config.mlp_ratio * dim, dim)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        x = x + self.attention(self.attention_norm(x))
        return x + self.fall(F.gelu(self.rise(self.mlp_norm(x))))


class Sret(PaperModel):
    """Classifies a set of tokens; their number is free and their order does not matter."""

    variants = VARIANTS

    def __init__(self, config: SretConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Linear(config.channels, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.classes)

    @classmethod
    def from_official(cls, checkpoint: Checkpoint, *, heads: int = 4) -> Self:
        """The model with the authors' weights, in evaluation mode.

        Args:
            checkpoint: the authors' file, or its state dict.
            heads: of attention, which the tensors don't tell.

        Raises:
            CheckpointError: for a file that is not one of this model.
        """
        from sret.official import convert

        return cls.from_state(*convert(read_checkpoint(checkpoint), heads=heads))

    def forward(self, x: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch classes"]:
        """Logits of each class."""
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))
