"""Manhattan attention against the definition, position by position."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rmt import attention
from rmt.attention import Decay, ManhattanAttention, decay_map
from rmt.convolution import DepthwiseConv

SIDES = st.integers(1, 7)
DECAY = Decay(2, 2.0, 4.0)


def literal(module: ManhattanAttention, x: torch.Tensor) -> torch.Tensor:
    """The layer in float64, with loops over positions."""
    b, h, w, dim = x.shape
    n, d = module.decay.heads, module.head_dim
    x = x.double()
    parameters = {k: v.double() for k, v in module.state_dict().items()}
    qk = F.linear(x, parameters["query_key.weight"], parameters["query_key.bias"])
    v = F.linear(x, parameters["value.weight"], parameters["value.bias"])
    local = F.conv2d(
        v.permute(0, 3, 1, 2),
        parameters["local_context.weight"],
        parameters["local_context.bias"],
        padding=2,
        groups=dim,
    ).permute(0, 2, 3, 1)
    q, k = qk.view(b, h, w, 2, n, d).unbind(3)
    v = v.view(b, h, w, n, d)
    angle = 1 / 10000 ** torch.linspace(0, 1, d // 2, dtype=torch.float64)

    def turned(z: torch.Tensor, y: int, x: int) -> torch.Tensor:
        t = (y * w + x) * angle
        even, odd = z[..., ::2], z[..., 1::2]
        pairs = (even * t.cos() - odd * t.sin(), odd * t.cos() + even * t.sin())
        return torch.stack(pairs, -1).flatten(-2)

    places = [(y, x) for y in range(h) for x in range(w)]
    q, k = q.clone(), k.clone() * d**-0.5
    for y, x_ in places:
        q[:, y, x_], k[:, y, x_] = turned(q[:, y, x_], y, x_), turned(k[:, y, x_], y, x_)
    exponents = module.decay.start + module.decay.spread * torch.arange(n).double() / n
    rates = (1 - 2**-exponents).log()

    def attend(v: torch.Tensor, near) -> torch.Tensor:
        out = torch.empty_like(v)
        for y, x_ in places:
            keys = near(y, x_)
            logits = [
                (q[:, y, x_] * k[:, i, j]).sum(-1) + rates * (abs(i - y) + abs(j - x_))
                for i, j in keys
            ]
            weights = torch.stack(logits, -1).softmax(-1)
            out[:, y, x_] = sum(weights[..., [m]] * v[:, i, j] for m, (i, j) in enumerate(keys))
        return out

    if module.decomposed:
        v = attend(v, lambda y, x: [(y, j) for j in range(w)])
        v = attend(v, lambda y, x: [(i, x) for i in range(h)])
    else:
        v = attend(v, lambda y, x: places)
    return F.linear(local + v.flatten(-2), parameters["out.weight"], parameters["out.bias"])


def run(module: ManhattanAttention, x: torch.Tensor) -> torch.Tensor:
    return module(x, module.geometry(x))


@settings(max_examples=8, deadline=None)
@given(h=SIDES, w=SIDES, decomposed=st.booleans())
def test_is_the_definition(h: int, w: int, decomposed: bool) -> None:
    torch.manual_seed(h * 10 + w)
    module = ManhattanAttention(8, DECAY, decomposed=decomposed).eval()
    x = torch.randn(2, h, w, 8)
    with torch.no_grad():
        assert torch.allclose(run(module, x).double(), literal(module, x), atol=1e-5)


@pytest.mark.parametrize("side", [9, 17, 33])
@pytest.mark.parametrize("decomposed", [True, False])
def test_fused_and_separate_products_agree(side: int, decomposed: bool, monkeypatch) -> None:
    module = ManhattanAttention(8, DECAY, decomposed=decomposed)
    found, x = [], torch.randn(2, side, side + 1, 8)
    for few in (0, 10**6):
        monkeypatch.setattr(attention, "FEW_KEYS", few)
        y = x.clone().requires_grad_()
        out = run(module, y)
        out.square().mean().backward()
        found.append((out.detach(), y.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_strips_equal_the_whole_bias(monkeypatch) -> None:
    module, x = ManhattanAttention(8, DECAY, decomposed=False).eval(), torch.randn(2, 11, 9, 8)
    with torch.no_grad():
        kept = run(module, x)
        monkeypatch.setattr(attention, "KEPT_BIAS", 0)
        monkeypatch.setattr(attention, "STRIP_QUERIES", 20)
        assert module.geometry(x).bias == ()
        assert torch.allclose(run(module, x), kept, atol=1e-6)
    assert len(module.geometry(x).bias) == 1  # training: one for all blocks
    assert torch.allclose(run(module, x), kept, atol=1e-6)


def test_no_decay_is_plain_attention() -> None:
    module = ManhattanAttention(8, Decay(2, 64.0, 0.0), decomposed=False).eval()
    x = torch.randn(1, 4, 5, 8)
    (bias,) = module.geometry(x).bias
    assert bias.abs().max() < 1e-17
    near = ManhattanAttention(8, DECAY, decomposed=False).eval()
    near.load_state_dict(module.state_dict())
    assert (run(near, x) - run(module, x)).abs().max() > 1e-3


def test_decay_map_is_the_manhattan_decay() -> None:
    seen = decay_map(DECAY, 4, 6, 1, 2)
    assert seen.shape == (2, 4, 6)
    assert seen[:, 1, 2].tolist() == [1, 1]
    assert torch.allclose(seen[:, 3, 0], (1 - 2.0 ** -torch.tensor([2.0, 4.0])) ** 4)
    with pytest.raises(ValueError, match=r"token \(4, 0\) lies outside the map of 4 x 6"):
        decay_map(DECAY, 4, 6, 4, 0)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("residual", [True, False])
def test_depthwise_convolution_and_its_gradients(size: int, residual: bool) -> None:
    module = DepthwiseConv(6, size, residual=residual).double()
    x = torch.randn(2, 7, 4, 6, dtype=torch.float64, requires_grad=True)
    image = x.permute(0, 3, 1, 2)
    expected = F.conv2d(image, module.weight, module.bias, padding=size // 2, groups=6)
    expected = expected.permute(0, 2, 3, 1) + (x if residual else 0)
    found = module(x)
    assert torch.allclose(found, expected)
    leaves = [x, module.weight, module.bias]
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    for a, b in zip(torch.autograd.grad(found.square().sum(), leaves), wanted, strict=True):
        assert torch.allclose(a, b)


def test_folded_residual_in_float32() -> None:
    module, x = DepthwiseConv(6, 3, residual=True), torch.randn(1, 5, 5, 6)
    image = x.permute(0, 3, 1, 2)
    expected = image + F.conv2d(image, module.weight, module.bias, padding=1, groups=6)
    assert torch.allclose(module(x), expected.permute(0, 2, 3, 1), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = module(x)
    assert torch.allclose(half.float(), expected.permute(0, 2, 3, 1), atol=0.05)
