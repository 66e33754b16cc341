import pytest
import torch
from attention_core import Dropout, attend, random_keep
from attention_core import dropout as module
from hypothesis import given, settings
from hypothesis import strategies as st

CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_entries_are_kept_at_the_rate_and_independently(rate: float) -> None:
    keep = random_keep((400, 1001), rate, CPU).float()
    assert keep.mean().item() == pytest.approx(1 - rate, abs=0.003)
    for axis in (0, 1):  # neighbours share random bits, but not their fate
        pairs = keep.narrow(axis, 0, 399) * keep.narrow(axis, 1, 399)
        assert pairs.mean().item() == pytest.approx((1 - rate) ** 2, abs=0.005)


def test_the_seed_decides() -> None:
    torch.manual_seed(1)
    first = random_keep((7, 3), 0.5, CPU)
    assert not first.equal(random_keep((7, 3), 0.5, CPU))
    torch.manual_seed(1)
    assert first.equal(random_keep((7, 3), 0.5, CPU))


def test_dropout_scales_what_it_keeps_and_rests_in_evaluation() -> None:
    layer, x = Dropout(0.25), torch.ones(100, 100, requires_grad=True)
    y = layer(x)
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    y.sum().backward()
    assert x.grad.equal(y.detach())
    assert layer.eval()(x).equal(x)
    assert Dropout(0.0)(x).equal(x)
    assert not Dropout(1.0)(x).any()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 400))
def test_attention_and_gradients_equal_the_definition(
    queries: int, keys: int, width: int, chunk: int
) -> None:
    q, k, v = (
        torch.randn(2, 3, n, width, dtype=torch.float64, requires_grad=True)
        for n in (queries, keys, keys)
    )
    module.CHUNK, before = chunk, module.CHUNK
    try:
        torch.manual_seed(5)
        ours = attend(q, k, v, dropout=0.3)
        torch.manual_seed(5)
        keep = random_keep((6, queries, keys), 0.3, CPU).view(2, 3, queries, keys)
        weights = (q @ k.mT / width**0.5).softmax(-1) * keep / 0.7
        expected = weights @ v
        torch.testing.assert_close(ours, expected)
        grad = torch.randn_like(ours)
        for a, b in zip(
            torch.autograd.grad(ours, (q, k, v), grad),
            torch.autograd.grad(expected, (q, k, v), grad),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    finally:
        module.CHUNK = before
