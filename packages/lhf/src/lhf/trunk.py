"""The Transformer of every backbone: causal, pre-norm, rotary, with keys and values to keep."""

from dataclasses import dataclass
from typing import NamedTuple, cast

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


@cached_per_size
def rotation(count: int, dim: int, device: torch.device) -> Float[Tensor, "2 count dim"]:
    """What :func:`turns` gives for the positions from 0."""
    return turns(torch.arange(count, device=device), dim)


def turns(positions: Int[Tensor, " count"], dim: int) -> Float[Tensor, "2 count dim"]:
    """Factors of a vector and of its swapped halves that turn it by its position, base 10,000."""
    frequency = 10_000 ** -(torch.arange(0, dim, 2, device=positions.device) / dim)
    angle = positions[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)])


def rotate(x: Float[Tensor, "... count dim"], turn: Float[Tensor, "2 count dim"]) -> Tensor:
    """Turn the pairs (i, i + dim / 2) of ``x`` by the angles of their positions."""
    own, swapped = turn.to(x.dtype)
    return torch.addcmul(x * own, x.roll(x.shape[-1] // 2, -1), swapped)


class Fork(NamedTuple):
    """How a sequence ends: after a common stem, paths that don't see each other.

    Each path is ``length`` tokens and then ``leaves``, alternatives for one position.
    """

    paths: int = 1
    length: int = 0
    leaves: int = 0

    def positions(self, count: int, device: torch.device) -> Int[Tensor, " count"]:
        """Places in their own sequence of ``count`` tokens."""
        place = torch.arange(count, device=device)
        stem = count - self.paths * (self.length + self.leaves)
        path = place[stem : stem + self.length + self.leaves].clone()
        path[self.length :] = stem + self.length
        return torch.cat([place[:stem], path.repeat(self.paths)])


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
        turn: Float[Tensor, "2 tokens head_dim"],
        mask: Bool[Tensor, "queries keys"] | None,
        last: int,
    ) -> Float[Tensor, "batch queries dim"]:
        """Attended values of the ``last`` tokens; see :meth:`Trunk.forward`."""
        q, k, v = self._project(x)
        k, q = rotate(k, turn), rotate(q[:, :, -last:], turn[:, -last:])
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

    def recall(
        self,
        x: Float[Tensor, "batch tokens dim"],
        turn: Float[Tensor, "2 tokens head_dim"],
        hidden: Float[Tensor, "tokens slots"],
        memory: Float[Tensor, "2 batch_heads slots head_dim"],
        slots: Int[Tensor, " tokens"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attended values of all tokens, which are remembered first; see :meth:`Trunk.step`.

        For so few queries the plain products are faster than a fused kernel.
        """
        split = self._project(x)
        q, k = rotate(split[:2], turn)
        memory.index_copy_(2, slots, torch.stack([k, split[2]]).flatten(1, 2))
        keys, values = memory
        scores = torch.baddbmm(hidden, q.flatten(0, 1), keys.mT, alpha=q.shape[-1] ** -0.5)
        attended = torch.bmm(scores.softmax(-1), values).unflatten(0, q.shape[:2])
        return self.out(attended.transpose(1, 2).flatten(2))

    def _project(self, x: Tensor) -> Float[Tensor, "3 batch heads tokens head_dim"]:
        split = self.qkv(x).unflatten(-1, (self.heads, 3, -1))
        return split.permute(3, 0, 2, 1, 4)


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
        turn: Float[Tensor, "2 tokens head_dim"],
        mask: Bool[Tensor, "queries keys"] | None,
        last: int,
    ) -> Float[Tensor, "batch queries dim"]:
        x = x[:, -last:] + self.attention(self.attention_norm(x), turn, mask, last)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def recall(self, x: Float[Tensor, "batch tokens dim"], *memory: Tensor) -> Tensor:
        x = x + self.attention.recall(self.attention_norm(x), *memory)
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
        fork: Fork | None = None,
    ) -> Float[Tensor, "batch last dim"]:
        """States of the ``last`` tokens (of all by default) under causal attention.

        The last block's queries and feed-forward network run for those tokens alone, which changes
        no number. With ``fork``, the end of ``x`` is alternatives, path by path.
        """
        count = x.shape[1]
        wanted = last or count
        if fork is None:
            turn, mask = rotation(count, self.head_dim, x.device), None
            if 2 * wanted > count:
                last = count  # near the whole, the causal kernel is faster
        else:
            turn = turns(fork.positions(count, x.device), self.head_dim)
            mask = fork_mask(count, fork, x.device)
        last = last or count
        head_mask = mask
        if mask is None and last not in (1, count):
            head_mask = fork_mask(count, Fork(), x.device)
        *body, head = self.blocks
        for block in body:
            x = block(x, turn, mask, count)
        x = head(x, turn, None if head_mask is None else head_mask[-last:], last)
        return x[:, -wanted:]

    @torch.no_grad()
    def step(
        self,
        x: Float[Tensor, "batch tokens dim"],
        positions: Int[Tensor, " tokens"],
        hidden: Float[Tensor, "tokens slots"],
        memory: Float[Tensor, "layers 2 batch_heads slots head_dim"],
        slots: Int[Tensor, " tokens"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """States of new tokens that see what ``memory`` holds.

        Their own keys and values are put into ``slots`` first. ``hidden`` is 0 where a token sees a
        slot and minus infinity where it doesn't.
        """
        turn = turns(positions, self.head_dim).to(x.dtype)
        for block, kept in zip(self.blocks, memory, strict=True):
            x = cast(Block, block).recall(x, turn, hidden, kept, slots)
        return x

    def memory(
        self, batch: int, slots: int
    ) -> Float[Tensor, "layers 2 batch_heads slots head_dim"]:
        """Room for keys, already rotated, and values of ``slots`` tokens in every layer."""
        like = next(self.parameters())
        return like.new_zeros(len(self.blocks), 2, batch * self.heads, slots, self.head_dim)


@cached_per_size
def fork_mask(count: int, fork: Fork, device: torch.device) -> Bool[Tensor, "count count"]:
    """Causal, but alternatives don't see each other."""
    length = fork.length + fork.leaves
    own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    own[fork.length :, fork.length :] = torch.eye(fork.leaves, dtype=torch.bool, device=device)
    mask = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    stem = count - fork.paths * length
    mask[stem:, stem:] = torch.block_diag(*[own] * fork.paths)
    return mask
