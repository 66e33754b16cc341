import pytest
import torch
from attention_core import attend, attention_weights, cached_per_size
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

size = st.integers(1, 13)


def naive(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=query.dtype)
    for b in range(query.shape[0]):
        for i in range(query.shape[1]):
            logits = torch.stack([q @ query[b, i] for q in key[b]]) / query.shape[-1] ** 0.5
            if bias is not None and bias.dtype == torch.bool:
                logits[~bias[i]] = -torch.inf
            elif bias is not None:
                logits = logits + bias[i]
            weights = logits.exp() / logits.exp().sum()
            out[b, i] = sum(w * v for w, v in zip(weights, value[b], strict=True))
    return out


@settings(max_examples=25, deadline=None)
@given(size, size, size, size, st.sampled_from(["none", "bias", "mask"]))
def test_attention_equals_the_definition(
    queries: int, keys: int, dim: int, value_dim: int, kind: str
) -> None:
    query = torch.randn(2, queries, dim, dtype=torch.float64)
    key = torch.randn(2, keys, dim, dtype=torch.float64)
    value = torch.randn(2, keys, value_dim, dtype=torch.float64)
    bias = None
    if kind == "bias":
        bias = torch.randn(queries, keys, dtype=torch.float64)
    elif kind == "mask":
        bias = torch.rand(queries, keys) < 0.5
        bias[:, 0] = True
    expected = naive(query, key, value, bias)
    torch.testing.assert_close(attend(query, key, value, bias), expected)
    torch.testing.assert_close(attention_weights(query, key, bias) @ value, expected)


def test_tables_are_built_once_per_size_and_forgotten_oldest_first() -> None:
    built: list[int] = []

    @cached_per_size
    def table(n: int) -> Tensor:
        built.append(n)
        return torch.arange(n)

    assert table(3) is table(3)
    assert table(4).shape == (4,)
    assert built == [3, 4]
    with torch.device("meta"):
        assert table(3).device.type == "meta"
    assert table(3).device.type == "cpu"
    for n in range(100, 140):
        table(n)
    table(3)
    assert built.count(3) == 3  # cpu, meta, and once more after it was forgotten


def test_a_table_first_built_in_inference_mode_serves_training() -> None:
    @cached_per_size
    def table(n: int) -> Tensor:
        return torch.ones(n, requires_grad=True) * 2

    with torch.inference_mode():
        table(2)
    weight = torch.ones(2, requires_grad=True)
    (weight * table(2)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2]
    assert not table(2).requires_grad


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_float32_bias_serves_half_precision(kind: torch.dtype) -> None:
    q = torch.randn(1, 4, 8, dtype=kind)
    assert attend(q, q, q, torch.zeros(4, 4)).dtype == kind
