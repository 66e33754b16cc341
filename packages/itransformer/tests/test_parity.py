"""The four attentions against their definitions written as loops, and golden cases varied."""

import math

import pytest
import torch
from attention_core import GoldenCase, golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from itransformer import ITransformer, ITransformerConfig
from itransformer.attention import ATTENTIONS
from itransformer.paper import PAPER
from torch import Tensor, nn


def config(**changes: object) -> ITransformerConfig:
    sizes = {"lookback": 12, "horizon": 5, "dim": 12, "feed_forward": 16, "layers": 2, "heads": 3}
    return ITransformerConfig(**{**sizes, "marks": 0, "dropout": 0.0, **changes})


@pytest.mark.parametrize("case", golden_cases("itransformer"), ids=lambda case: case.name)
def test_golden(case: GoldenCase) -> None:
    assert case.failures(PAPER.golden(case)) == {}


def per_head(layer: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Query, key and value [tokens, head_dim] of each head of one sample."""
    query, key, value = (layer.qkv(x)).chunk(3, -1)
    width = query.shape[-1] // layer.heads
    return [
        tuple(z[:, h * width : (h + 1) * width] for z in (query, key, value))
        for h in range(layer.heads)
    ]


def full(layer: nn.Module, x: Tensor) -> Tensor:
    heads = []
    for query, key, value in per_head(layer, x):
        rows = []
        for q in query:
            weight = torch.stack([torch.exp(q @ k / math.sqrt(len(q))) for k in key])
            rows.append((weight / weight.sum()) @ value)
        heads.append(torch.stack(rows))
    return layer.out(torch.cat(heads, -1))


def flow(layer: nn.Module, x: Tensor) -> Tensor:
    heads, e = [], 1e-6
    for query, key, value in per_head(layer, x):
        query, key = query.sigmoid(), key.sigmoid()
        n = len(query)
        into = [1 / ((q + e) @ (key.sum(0) + e)) for q in query]
        out = [1 / ((k + e) @ (query.sum(0) + e)) for k in key]
        into_hat = [
            (q + e) @ (sum(k * o for k, o in zip(key, out, strict=True)) + e) for q in query
        ]
        out_hat = [
            (k + e) @ (sum(q * i for q, i in zip(query, into, strict=True)) + e) for k in key
        ]
        compete = n * torch.stack(out_hat).softmax(0)
        state = sum(torch.outer(k, v * c) for k, v, c in zip(key, value, compete, strict=True))
        rows = [
            i * torch.sigmoid(h) * (q @ state)
            for q, i, h in zip(query, into, into_hat, strict=True)
        ]
        heads.append(torch.stack(rows))
    return layer.out(torch.cat(heads, -1))


def prob(layer: nn.Module, x: Tensor, draws: Tensor) -> Tensor:
    heads = []
    for query, key, value in per_head(layer, x):
        tokens = len(query)
        unevenness = []
        for i, q in enumerate(query):
            sampled = torch.stack([q @ key[j] for j in draws[i]])
            unevenness.append(sampled.max() - sampled.sum() / tokens)
        busy = torch.stack(unevenness).topk(draws.shape[1]).indices.tolist()
        rows = [value.mean(0)] * tokens
        for i in busy:
            rows[i] = (key @ query[i] / math.sqrt(len(query[i]))).softmax(0) @ value
        heads.append(torch.stack(rows))
    return layer.out(torch.stack(heads).reshape(len(x), -1))  # heads and tokens interchanged


def lsh(layer: nn.Module, x: Tensor, draws: Tensor) -> Tensor:
    size, rounds = layer.bucket_size, layer.hashes
    tokens, dim = x.shape
    padded = torch.cat([x, x.new_zeros(-tokens % (2 * size), dim)])
    count, width = len(padded), dim // layer.heads
    heads = []
    for h in range(layer.heads):
        part = slice(h * width, (h + 1) * width)
        qk, v = layer.query_key(padded)[:, part], layer.value(padded)[:, part]
        entries = []
        for r in range(rounds):
            hashed = qk @ draws[0, :, r]
            for t, bucket in enumerate(torch.cat([hashed, -hashed], -1).argmax(-1).tolist()):
                entries.append((r, bucket, t))
        entries.sort()
        chunks = [entries[i : i + size] for i in range(0, len(entries), size)]
        results: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for c, chunk in enumerate(chunks):
            seen = [t for _, _, t in chunk + chunks[c - 1]]
            for r, _, t in chunk:
                logits = torch.stack(
                    [
                        torch.tensor(-5e4, dtype=x.dtype)
                        if s == t
                        else qk[t] @ qk[s] / qk[s].norm().clamp_min(1e-12) / math.sqrt(width)
                        for s in seen
                    ]
                )
                results[r, t] = logits.softmax(0) @ v[seen], logits.logsumexp(0)
        rows = []
        for t in range(count):
            share = torch.stack([results[r, t][1] for r in range(rounds)]).softmax(0)
            rows.append(sum(share[r] * results[r, t][0] for r in range(rounds)))
        heads.append(torch.stack(rows))
    return layer.out(torch.cat(heads, -1))[:tokens]


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 13), st.sampled_from(["full", "flow", "prob", "lsh"]), st.integers(1, 3))
def test_every_attention_equals_its_definition(tokens: int, kind: str, factor: int) -> None:
    layer = ATTENTIONS[kind](config(attention=kind, factor=factor)).double()
    x = torch.randn(2, tokens, 12, dtype=torch.float64)
    if kind in ("full", "flow"):
        draws, expected = None, [{"full": full, "flow": flow}[kind](layer, row) for row in x]
    elif kind == "prob":
        draws = torch.randint(tokens, (tokens, layer.samples(tokens)))
        if not draws.shape[1]:
            return
        expected = [prob(layer, row, draws) for row in x]
    else:
        draws = layer.rotations(x)
        expected = [lsh(layer, row, draws) for row in x]
    torch.testing.assert_close(layer(x, draws), torch.stack(expected))


def test_prob_attention_is_full_attention_when_every_query_is_kept() -> None:
    one_head = config(attention="prob", factor=9, heads=1)
    layer = ATTENTIONS["prob"](one_head)
    twin = ATTENTIONS["full"](config(heads=1))
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, 12)
    torch.testing.assert_close(layer(x), twin(x))


def test_heads_need_not_divide_the_width() -> None:
    layer = ATTENTIONS["full"](config(dim=11))
    assert layer.out.weight.shape == (11, 9)
    x = torch.randn(1, 5, 11)
    torch.testing.assert_close(layer(x)[0], full(layer, x[0]))


def official_state(dim: int = 11, heads: int = 3) -> dict[str, Tensor]:
    """A checkpoint in the authors' layout, with narrowed attention."""
    inner = heads * (dim // heads)
    shapes = {
        "enc_embedding.value_embedding.weight": (dim, 12),
        "enc_embedding.value_embedding.bias": (dim,),
        "encoder.norm.weight": (dim,), "encoder.norm.bias": (dim,),
        "projector.weight": (5, dim), "projector.bias": (5,),
    }  # fmt: skip
    layer = "encoder.attn_layers.0."
    for part in ("query", "key", "value"):
        shapes[f"{layer}attention.{part}_projection.weight"] = (inner, dim)
        shapes[f"{layer}attention.{part}_projection.bias"] = (inner,)
    shapes[f"{layer}attention.out_projection.weight"] = (dim, inner)
    shapes[f"{layer}attention.out_projection.bias"] = (dim,)
    for name, size in (("conv1", (16, dim, 1)), ("conv2", (dim, 16, 1))):
        shapes |= {f"{layer}{name}.weight": size, f"{layer}{name}.bias": size[:1]}
    for name in ("norm1", "norm2"):
        shapes |= {f"{layer}{name}.weight": (dim,), f"{layer}{name}.bias": (dim,)}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_wrapped_renamed_and_prefixed_checkpoints_load() -> None:
    state = official_state()
    told = {"heads": 3, "use_norm": True, "marks": 0}
    x = torch.randn(2, 12, 4)
    expected = ITransformer.from_official(state, **told)(x)
    tslib = {key.replace("projector", "projection"): value for key, value in state.items()}
    parallel = {f"module.{key}": value for key, value in state.items()}
    for other in (tslib, parallel, {"state_dict": state}):
        assert ITransformer.from_official(other, **told)(x).equal(expected)


def test_the_other_backbones_always_normalise() -> None:
    model = ITransformer.from_official(
        official_state(), heads=3, use_norm=False, marks=0, attention="flow"
    )
    assert model.config.use_norm
