"""Attention in rectangles against pixel-by-pixel attention, and the MLP behind its bias."""

import pytest
import torch
import torch.nn.functional as F
from attention_core import DynamicPositionBias, RectangleAttention
from torch import Tensor


def by_pixel(layer: RectangleAttention, x: Tensor) -> Tensor:
    """One query at a time: its window's positions, the bias of each offset, the padding's keys."""
    height, width, dim = x.shape
    longer, half = max(layer.windows[0]), dim // 2
    sides = [-(-side // longer) * longer for side in (height, width)]
    qkv = layer.qkv(x)
    local = layer.local(qkv[..., 2 * dim :].permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    padded = F.pad(qkv, (0, 0, 0, sides[1] - width, 0, sides[0] - height))
    out = torch.empty_like(x)
    for kind, window in enumerate(layer.windows):
        shift = [side // 2 if layer.shifted else 0 for side in window]
        cells: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for y in range(sides[0]):
            for c in range(sides[1]):
                at = [(p - s) % n for p, s, n in zip((y, c), shift, sides, strict=True)]
                cell = [p // w for p, w in zip(at, window, strict=True)]
                if layer.masked:  # what wrapped around is a cell of its own
                    cell += [int(p >= n - s) for p, s, n in zip(at, shift, sides, strict=True)]
                cells.setdefault(tuple(cell), []).append((y, c))
        for members in cells.values():
            y, c = torch.tensor(members).T
            q, k, v = (
                part[..., kind * half : kind * half + half]
                .unflatten(-1, (layer.heads // 2, -1))
                .transpose(0, 1)
                for part in padded[y, c].chunk(3, -1)
            )
            seen_y, seen_x = ((p - s) % n for p, s, n in zip((y, c), shift, sides, strict=True))
            offsets = torch.stack([seen_y[:, None] - seen_y, seen_x[:, None] - seen_x], -1).float()
            bias = layer.positions[kind](offsets).permute(2, 0, 1)
            attended = ((q @ k.mT) * layer.head_dim**-0.5 + bias).softmax(-1) @ v
            attended = attended.transpose(0, 1).flatten(1)
            for row, (at_y, at_x) in zip(attended, members, strict=True):
                if at_y < height and at_x < width:
                    out[at_y, at_x, kind * half : kind * half + half] = row
    return layer.proj(out + local)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_each_pixel_sees_its_rectangle(masked: bool, shifted: bool) -> None:
    torch.manual_seed(0)
    layer = RectangleAttention(96, 4, (2, 4), shifted=shifted, masked=masked)
    for parameter in layer.positions.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 7, 9, 96)
    with torch.no_grad():
        expected = torch.stack([by_pixel(layer, image) for image in x])
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_the_bias_depends_on_the_offset_alone() -> None:
    bias = DynamicPositionBias((2, 3), 4, 2).bias()
    assert bias.shape == (2, 6, 6)
    assert bias[:, 0, 1].equal(bias[:, 4, 5])
    assert not torch.allclose(bias[:, 0, 1], bias[:, 1, 0])


def test_heads_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="heads=3: must be even and divide dim=96"):
        RectangleAttention(96, 3, (2, 4))


def test_a_constant_bias_is_left_out() -> None:
    layer = RectangleAttention(48, 6, (2, 4), shifted=True, masked=False)
    assert not any(parameter.requires_grad for parameter in layer.positions.parameters())
    x = torch.randn(1, 4, 8, 48)
    before = layer(x)
    torch.testing.assert_close(before[0], by_pixel(layer, x[0]), rtol=1e-4, atol=1e-5)
    for parameter in layer.positions.parameters():
        torch.nn.init.normal_(parameter)
    assert layer(x).equal(before)
    torch.testing.assert_close(before[0], by_pixel(layer, x[0]), rtol=1e-4, atol=1e-5)
