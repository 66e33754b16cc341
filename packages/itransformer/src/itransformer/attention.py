"""Attention between variate tokens: the paper's own and its inverted backbones (Table 2)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attention_core import attend, attention_weights, split_heads
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

if TYPE_CHECKING:
    from itransformer.model import ITransformerConfig

Draws = Sequence[Tensor] | None
"""The random numbers of ``prob`` and ``lsh`` attention, layer by layer."""

EPSILON = 1e-6


class FullAttention(nn.Module):
    """Multi-head softmax attention over all tokens, in memory linear in their number."""

    def __init__(self, config: "ITransformerConfig") -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        inner = config.heads * (config.dim // config.heads)
        self.qkv = nn.Linear(config.dim, 3 * inner)
        self.out = nn.Linear(inner, config.dim)

    def heads_of(self, x: Float[Tensor, "batch tokens dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [batch, heads, tokens, head_dim]."""
        return split_heads(self.qkv(x), self.heads)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], draws: Tensor | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self.heads_of(x)
        attended = attend(query, key, value, dropout=self.dropout if self.training else 0.0)
        return self.out(rearrange(attended, "batch heads tokens dim -> batch tokens (heads dim)"))

    def weights(
        self, x: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        """The attention weights, for looking at."""
        query, key, _ = self.heads_of(x)
        return attention_weights(query, key)


class MaterialisedAttention(FullAttention):
    """The same function with its weights in memory, which grow with the square of the tokens."""

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], draws: Tensor | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self.heads_of(x)
        attended = attention_weights(query, key) @ value
        return self.out(rearrange(attended, "batch heads tokens dim -> batch tokens (heads dim)"))


class FlowAttention(FullAttention):
    """Flowformer's attention: conserved flow instead of a softmax, linear in the tokens."""

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], draws: Tensor | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self.heads_of(x)
        query, key = query.sigmoid(), key.sigmoid()
        tokens = x.shape[1]

        def flow(to: Tensor, source: Tensor) -> Float[Tensor, "batch heads tokens 1"]:
            return ((to + EPSILON) * (source + EPSILON)).sum(-1, keepdim=True)

        incoming = 1 / flow(query, key.sum(2, keepdim=True))
        outgoing = 1 / flow(key, query.sum(2, keepdim=True))
        conserved_in = flow(query, (key * outgoing).sum(2, keepdim=True))
        conserved_out = flow(key, (query * incoming).sum(2, keepdim=True))
        competition = tokens * conserved_out.softmax(2)
        allocation = conserved_in.sigmoid()
        attended = (query * incoming) @ (key.mT @ (value * competition)) * allocation
        return self.out(rearrange(attended, "batch heads tokens dim -> batch tokens (heads dim)"))


class ProbSparseAttention(FullAttention):
    """Informer's attention: the queries that look most unevenly attend, the others average.

    The authors' checkpoints were trained with heads and tokens interchanged before the output
    projection, so that is what stands here.
    """

    def __init__(self, config: "ITransformerConfig") -> None:
        super().__init__(config)
        self.factor = config.factor

    def samples(self, tokens: int) -> int:
        """How many keys each query samples, and how many queries attend."""
        return min(self.factor * math.ceil(math.log(tokens)), tokens)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        draws: Int[Tensor, "tokens samples"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self.heads_of(x)
        tokens = x.shape[1]
        kept = self.samples(tokens)
        if draws is None:
            draws = torch.randint(tokens, (tokens, kept), device=x.device)
        if kept:
            sampled = torch.einsum("bhtd,bhtsd->bhts", query, key[:, :, draws])
            unevenness = sampled.amax(-1) - sampled.sum(-1) / tokens
            top = (
                unevenness.topk(kept, sorted=False)
                .indices[..., None]
                .expand(*query.shape[:2], kept, query.shape[-1])
            )
            busy = attend(query.gather(2, top), key, value)
            attended = value.mean(2, keepdim=True).expand_as(value).scatter(2, top, busy)
        else:  # a single token: ln 1 = 0 queries attend
            attended = value.mean(2, keepdim=True)
        return self.out(attended.reshape(x.shape[0], tokens, -1))


class LSHAttention(nn.Module):
    """Reformer's attention: tokens with one hash attend within chunks of a sorted sequence.

    Queries serve as keys. Tokens are padded with zeros to whole pairs of buckets, and the padding
    takes part, as in the authors' runs.
    """

    SELF = -5e4  # the logit of a token with itself: last resort, not minus infinity

    def __init__(self, config: "ITransformerConfig") -> None:
        super().__init__()
        self.heads, self.bucket_size, self.hashes = config.heads, config.bucket_size, config.hashes
        self.query_key = nn.Linear(config.dim, config.dim, bias=False)
        self.value = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim)

    def rotations(self, x: Float[Tensor, "batch tokens dim"]) -> Tensor:
        """Fresh hash rotations for the padded tokens of ``x``: [1, head_dim, hashes, buckets/2]."""
        padded = x.shape[1] + -x.shape[1] % (2 * self.bucket_size)
        size = (1, x.shape[2] // self.heads, self.hashes, padded // self.bucket_size // 2)
        return torch.randn(size, device=x.device, dtype=x.dtype)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        draws: Float[Tensor, "1 head_dim hashes half_buckets"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        batch, tokens = x.shape[:2]
        rotations = self.rotations(x) if draws is None else draws.to(x.dtype)
        x = nn.functional.pad(x, (0, 0, 0, -tokens % (2 * self.bucket_size)))
        split = "batch tokens (heads dim) -> (batch heads) tokens dim"
        query = rearrange(self.query_key(x), split, heads=self.heads)
        value = rearrange(self.value(x), split, heads=self.heads)
        attended = self.attend_in_buckets(query, value, rotations[0])
        merge = "(batch heads) tokens dim -> batch tokens (heads dim)"
        return self.out(rearrange(attended, merge, batch=batch))[:, :tokens]

    def attend_in_buckets(
        self,
        query: Float[Tensor, "rows tokens dim"],
        value: Float[Tensor, "rows tokens dim"],
        rotations: Float[Tensor, "dim hashes half_buckets"],
    ) -> Float[Tensor, "rows tokens dim"]:
        """Every round of hashing, combined by the log-sum-exp of its logits."""
        tokens, hashes = query.shape[1], self.hashes
        projected = torch.einsum("rtd,dhb->rhtb", query.detach(), rotations)
        bucket = torch.cat([projected, -projected], -1).argmax(-1)
        bucket = bucket + torch.arange(hashes, device=query.device)[:, None] * tokens
        order = rearrange(bucket, "rows hashes tokens -> rows (hashes tokens)").argsort(stable=True)
        position = order % tokens

        def chunk(z: Tensor) -> Shaped[Tensor, "rows chunks size ..."]:
            return rearrange(
                z, "rows (chunks size) ... -> rows chunks size ...", size=self.bucket_size
            )

        def take(z: Float[Tensor, "rows tokens dim"]) -> Float[Tensor, "rows chunks size dim"]:
            return chunk(z.gather(1, position[..., None].expand(-1, -1, z.shape[-1])))

        def with_previous(z: Tensor) -> Tensor:
            return torch.cat([z, z.roll(1, dims=1)], 2)

        asks, gives, where = take(query), take(value), chunk(position)
        key = with_previous(nn.functional.normalize(asks, dim=-1))
        logits = asks @ key.mT * asks.shape[-1] ** -0.5
        itself = where[..., :, None] == with_previous(where)[..., None, :]
        logits = logits.masked_fill(itself, self.SELF)
        total = logits.logsumexp(-1, keepdim=True)
        attended = (logits - total).exp() @ with_previous(gives)

        back = order.argsort()

        def unsort(z: Tensor) -> Float[Tensor, "rows hashes tokens dim"]:
            z = rearrange(z, "rows chunks size dim -> rows (chunks size) dim")
            z = z.gather(1, back[..., None].expand(-1, -1, z.shape[-1]))
            return rearrange(z, "rows (hashes tokens) dim -> rows hashes tokens dim", hashes=hashes)

        return (unsort(attended) * unsort(total).softmax(1)).sum(1)


ATTENTIONS: dict[str, type[nn.Module]] = {
    "full": FullAttention,
    "flow": FlowAttention,
    "prob": ProbSparseAttention,
    "lsh": LSHAttention,
}
