"""Golden cases, and the network against one written out of PyTorch's own parts."""

import pytest
import torch
from attention_core import GoldenCase, golden_cases
from gateformer import Gateformer, GateformerConfig
from gateformer.model import sinusoids
from gateformer.official import LAYER_NAMES
from gateformer.paper import PAPER
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn


@pytest.mark.parametrize("case", golden_cases("gateformer"), ids=lambda case: case.name)
def test_golden(case: GoldenCase) -> None:
    assert case.failures(PAPER.golden(case)) == {}


def encoded(layers: nn.Sequential, x: Tensor, config: GateformerConfig) -> Tensor:
    for layer in layers:
        twin = nn.TransformerEncoderLayer(
            config.dim, config.heads, config.feed_forward, 0.0,
            batch_first=True, norm_first=True, dtype=x.dtype,
        )  # fmt: skip
        own = dict(layer.named_parameters())
        twin.load_state_dict({theirs: own[ours] for theirs, ours in LAYER_NAMES.items()})
        x = twin(x)
    return x


def literal(model: Gateformer, x: Tensor) -> Tensor:
    """The card's list, one series and one patch after the other."""
    c = model.config
    mean = x.mean(1, keepdim=True)
    deviation = (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    window = (x - mean) / deviation
    rows = []
    for batch in window:
        own = []
        for series in batch.T:
            longer = torch.cat([series, series[-1:].repeat(c.stride)])
            starts = range(0, len(longer) - c.patch + 1, c.stride)
            patches = torch.stack([longer[s : s + c.patch] for s in starts])
            tokens = model.temporal.embedding(patches) + sinusoids(len(patches), c.dim, x.device)
            tokens = encoded(model.temporal.encoder, tokens[None], c)[0]
            local = model.temporal.head(tokens.flatten()[None])[0]
            whole = model.window_embedding(series)
            gate = model.embedding_gate
            share = torch.sigmoid(gate.first(whole[None])[0] + gate.second(local[None])[0])
            own.append(share * whole + (1 - share) * local)
        v = torch.stack(own)
        z = encoded(model.variate_encoder, v[None], c)[0]
        gate = model.interaction_gate
        share = torch.sigmoid(gate.first(v) + gate.second(z))
        rows.append(model.projection(share * v + (1 - share) * z).T)
    return torch.stack(rows) * deviation + mean


@settings(max_examples=12, deadline=None)
@given(
    st.integers(5, 30), st.integers(1, 7), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5)
)
def test_any_size_equals_the_definition(
    lookback: int, patch: int, stride: int, heads: int, variates: int
) -> None:
    config = GateformerConfig(
        lookback=lookback, horizon=3, patch=min(patch, lookback + stride), stride=stride,
        dim=4 * heads, feed_forward=5, heads=heads, layers=2,
    )  # fmt: skip
    model = Gateformer(config).double().eval()
    x = torch.randn(2, lookback, variates, dtype=torch.float64)
    torch.testing.assert_close(model(x), literal(model, x), atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model(x), literal(model, x), atol=1e-6, rtol=1e-6)


def test_sinusoids_alternate_sine_and_cosine() -> None:
    table = sinusoids(7, 6, torch.device("cpu"))
    for position in range(7):
        for pair in range(3):
            angle = torch.tensor(position * 10000 ** (-2 * pair / 6))
            torch.testing.assert_close(table[position, 2 * pair], angle.sin())
            torch.testing.assert_close(table[position, 2 * pair + 1], angle.cos())
