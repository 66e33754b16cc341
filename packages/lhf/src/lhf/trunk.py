"""The Transformer of every backbone: causal, pre-norm, rotary, with keys and values to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from attention_core import Dropout, cached_per_size, require, require_fraction, require_positive
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """Sizes that every backbone has."""

    transitions: int = 80
    """Length of the context in training: ``transitions - 1`` past ones and the query."""
    dim: int = 32
    layers: int = 4
    heads: int = 4
    inner: int = 128
    dropout: float = 0.1
    """Of what a norm reads, in training."""
    attention_dropout: float = 0.1
    dynamics: bool = False
    """Also predict reward and next state of an action (DICP)."""

    def __post_init__(self) -> None:
        require_positive(self, "transitions", "dim", "layers", "heads", "inner")
        require_fraction(self, "dropout", "attention_dropout")
        require(self, "transitions", self.transitions > 1, "must be at least 2")
        even = self.dim % (2 * self.heads) == 0
        require(self, "heads", even, f"must split dim={self.dim} into heads of an even width")


class Memory(NamedTuple):
    """Keys and values of one layer that later tokens may look at; keys are already rotated."""

    key: Float[Tensor, "batch heads slots head_dim"]
    value: Float[Tensor, "batch heads slots head_dim"]


@cached_per_size
def rotation(start: int, count: int, dim: int, device: torch.device) -> Float[Tensor, "2 count d"]:
    """Cosines and sines of the positions ``start .. start + count - 1``, base 10,000."""
    return angles(torch.arange(start, start + count, device=device), dim)


def angles(positions: Int[Tensor, " count"], dim: int) -> Float[Tensor, "2 count d"]:
    """Cosines and sines of rotary positions; ``d`` is half of ``dim``."""
    frequency = 10_000 ** -(torch.arange(0, dim, 2, device=positions.device) / dim)
    angle = positions[:, None] * frequency
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Float[Tensor, "... count dim"], turn: Float[Tensor, "2 count d"]) -> Tensor:
    """Turn the pairs (i, i + dim / 2) of ``x`` by the angles of their positions."""
    cos, sin = turn.to(x.dtype)
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


class Norm(nn.Module):
    """RMSNorm; in training it reads its input through dropout, the residual path does not."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        x = self.dropout(x)
        wide = x if x.dtype == torch.float64 else x.float()
        return F.rms_norm(wide, wide.shape[-1:], self.weight, 1e-5).to(x.dtype)


class Attention(nn.Module):
    """Rotary self-attention; query, key and value of a head lie side by side in one projection."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.attention_dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        turn: Float[Tensor, "2 tokens d"],
        mask: Bool[Tensor, "queries keys"] | None,
        last: int,
        memory: Memory | None = None,
        slots: Int[Tensor, " tokens"] | None = None,
        filled: int = 0,
    ) -> Float[Tensor, "batch queries dim"]:
        """Attended values of the ``last`` tokens; see :meth:`Trunk.forward`."""
        q, k, v = rearrange(self.qkv(x), "b t (h part d) -> part b h t d", h=self.heads, part=3)
        k, q = rotate(k, turn), rotate(q[:, :, -last:], turn[:, -last:])
        if memory is not None:
            memory.key[:, :, slots], memory.value[:, :, slots] = k, v
            k, v = memory.key[:, :, :filled], memory.value[:, :, :filled]
        alone = mask is None and last == 1  # the last token sees everything
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and not alone,
        )
        return self.out(rearrange(attended, "b h t d -> b t (h d)"))


class SwiGLU(nn.Module):
    """down(silu(gate x) · up x), without biases."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, inner, bias=False)
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then a gated feed-forward network, each behind a norm and beside a residual."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.attention_norm = Norm(config.dim, config.dropout)
        self.attention = Attention(config)
        self.feed_forward_norm = Norm(config.dim, config.dropout)
        self.feed_forward = SwiGLU(config.dim, config.inner)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        turn: Float[Tensor, "2 tokens d"],
        mask: Bool[Tensor, "queries keys"] | None,
        last: int,
        **memory: object,
    ) -> Float[Tensor, "batch queries dim"]:
        x = x[:, -last:] + self.attention(self.attention_norm(x), turn, mask, last, **memory)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Trunk(nn.Module):
    """The blocks, without a final norm."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.dim // config.heads
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        last: int | None = None,
        branches: int = 0,
    ) -> Float[Tensor, "batch last dim"]:
        """States of the ``last`` tokens (of all by default) under causal attention.

        The last block's queries and feed-forward network run for those tokens alone, which changes
        no number. With ``branches``, the last so many tokens are alternatives for one position:
        each sees what is before them and itself.
        """
        count = x.shape[1]
        wanted = last or count
        last = (
            count if 2 * wanted > count else wanted
        )  # near the whole, the causal kernel is faster
        stem = count - branches
        turn = rotation(0, stem + bool(branches), self.head_dim, x.device)
        mask = None
        if branches:
            turn = torch.cat([turn[:, :stem], turn[:, stem:].expand(-1, branches, -1)], 1)
            mask = tree_mask(count, branches, x.device)
        head_mask = mask
        if mask is None and last not in (1, count):
            head_mask = tree_mask(count, 0, x.device)
        *body, head = self.blocks
        for block in body:
            x = block(x, turn, mask, count)
        x = head(x, turn, None if head_mask is None else head_mask[-last:], last)
        return x[:, -wanted:]

    def step(
        self,
        x: Float[Tensor, "batch tokens dim"],
        positions: Int[Tensor, " tokens"],
        memory: Sequence[Memory],
        slots: Int[Tensor, " tokens"],
        mask: Bool[Tensor, "tokens filled"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """States of new tokens that see what ``memory`` holds, where ``mask`` says so.

        Their own keys and values are put into ``slots`` first.
        """
        turn = angles(positions, self.head_dim)
        for block, kept in zip(self.blocks, memory, strict=True):
            x = block(x, turn, mask, x.shape[1], memory=kept, slots=slots, filled=mask.shape[1])
        return x

    def memory(self, batch: int, slots: int) -> list[Memory]:
        """Room for the keys and values of ``slots`` tokens in every layer."""
        like = next(self.parameters())
        shape = (batch, self.heads, slots, self.head_dim)
        return [Memory(like.new_zeros(shape), like.new_zeros(shape)) for _ in self.blocks]


@cached_per_size
def tree_mask(count: int, branches: int, device: torch.device) -> Bool[Tensor, "count count"]:
    """Causal, but the last ``branches`` tokens don't see each other."""
    mask = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    if branches:
        mask[-branches:, -branches:] = torch.eye(branches, dtype=torch.bool, device=device)
    return mask
