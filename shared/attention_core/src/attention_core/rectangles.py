"""Attention in lying and standing rectangles at once, with a position bias that a network makes.

Half of the heads look at windows a high and b wide, the others at windows b high and a wide; a
depth-wise convolution of the values adds what lies across the windows' borders (CAT; RGT, CRAFT).
"""

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attention_core.attention import cached_per_size, split_heads
from attention_core.windows import (
    ALIGNMENT,
    WindowGrid,
    convolve,
    pad_heads,
    relative_position_bias,
    token_linear,
    window_attention,
)

KINDS_FIRST = "(three kind dims) ... -> (kind three dims) ..."


class DynamicPositionBias(nn.Sequential):
    """The bias of each head for each pair of positions in a window, by an MLP from their offset."""

    def __init__(self, window: tuple[int, int], hidden: int, heads: int) -> None:
        inner = [[nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden)] for _ in range(2)]
        last = [nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, heads)]
        super().__init__(nn.Linear(2, hidden), *inner[0], *inner[1], *last)
        self.window = window

    def bias(self) -> Float[Tensor, "heads tokens tokens"]:
        """What is added to the logits of every window."""
        like = next(self.parameters())
        table = self(_offsets(self.window, like.device).to(like.dtype))
        return relative_position_bias(table, self.window)


class RectangleAttention(nn.Module):
    """Local self-attention in rectangles of a x b and b x a pixels.

    Maps of any size: queries, keys and values are continued with zeros to a multiple of the longer
    side, and the added positions take part as keys. ``alignment`` is as in ``WindowAttention``.
    With fewer than 64 channels the position bias is constant; it is left out and doesn't learn.

    Args:
        dim: channels; the first half belongs to the first kind of rectangle.
        heads: attention heads, an even number.
        window: a and b.
        qkv_bias: whether queries, keys and values have a bias.
        shifted: whether the rectangles are moved by half their sides.
        masked: whether a shift hides from each other what it brought together; else it wraps.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: tuple[int, int],
        *,
        qkv_bias: bool = True,
        shifted: bool = False,
        masked: bool = True,
    ) -> None:
        super().__init__()
        if heads % 2 or dim % heads:
            raise ValueError(f"heads={heads}: must be even and divide dim={dim}")
        self.heads, self.head_dim = heads, dim // heads
        self.shifted, self.masked = shifted, masked
        self.alignment = ALIGNMENT
        self.windows = window, window[::-1]
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.positions = nn.ModuleList(
            DynamicPositionBias(window, dim // 32, heads // 2) for window in self.windows
        )
        # A norm over a single number forgets it: such a bias is one constant per head.
        self.positioned = dim // 32 > 1
        self.positions.requires_grad_(self.positioned)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        height, width = x.shape[1:3]
        # Each kind's queries, keys and values lie side by side: its windows are one gather.
        weight, offset = (
            None if p is None else rearrange(self._padded(p), KINDS_FIRST, three=3, kind=2)
            for p in (self.qkv.weight, self.qkv.bias)
        )
        qkv = token_linear(x, weight, offset)
        # Zeros are also what the convolution sees beyond the map.
        longer = max(self.windows[0])
        if height % longer or width % longer:
            qkv = F.pad(qkv, (0, 0, 0, -width % longer, 0, -height % longer))
        grids = [self._grid((qkv.shape[1], qkv.shape[2]), window) for window in self.windows]
        *windows, value = _Cut.apply(qkv, *grids)
        weight, offset = (self._padded(p) for p in self.local.parameters())
        local = convolve(
            partial(F.conv2d, weight=weight, bias=offset, padding=1, groups=len(weight)), value
        )
        kinds = [
            self._attend(part, grid, cast(DynamicPositionBias, position))
            for part, grid, position in zip(windows, grids, self.positions, strict=True)
        ]
        attended = (torch.cat(kinds, -1) + local)[:, :height, :width]
        return token_linear(attended, self._padded(self.proj.weight.mT).mT, self.proj.bias)

    def _grid(self, size: tuple[int, int], window: tuple[int, int]) -> WindowGrid:
        shift = (window[0] // 2, window[1] // 2) if self.shifted else (0, 0)
        return WindowGrid(size, window, shift)

    def _attend(
        self,
        windows: Float[Tensor, "n tokens dims"],
        grid: WindowGrid,
        position: DynamicPositionBias,
    ) -> Float[Tensor, "b h w dim"]:
        bias = position.bias() if self.positioned else None
        query, key, value = split_heads(windows, self.heads // 2)
        attended = window_attention(
            query, key, value, bias, grid if self.masked else None, scale=self.head_dim**-0.5
        )
        return grid.merge(rearrange(attended, "n heads tokens d -> n tokens (heads d)"))

    def _padded(self, parameter: Float[Tensor, "dims *rest"]) -> Float[Tensor, "padded *rest"]:
        return pad_heads(parameter, self.head_dim, -self.head_dim % self.alignment)


class _Cut(torch.autograd.Function):
    """The windows of either kind and the image of the values; backwards, one gradient of all."""

    @staticmethod
    def forward(qkv: Tensor, *grids: WindowGrid) -> tuple[Tensor, ...]:
        parts = qkv.chunk(2, -1)
        windows = [grid.partition(part) for grid, part in zip(grids, parts, strict=True)]
        return *windows, torch.cat([part.chunk(3, -1)[2] for part in parts], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, *ctx.grids = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *windows, values = grads
        merged = [grid.merge(part) for grid, part in zip(ctx.grids, windows, strict=True)]
        grad = torch.cat(merged, -1)
        for part, value in zip(grad.chunk(2, -1), values.chunk(2, -1), strict=True):
            part.chunk(3, -1)[2].add_(value)
        return grad, None, None


@cached_per_size
def _offsets(window: tuple[int, int], device: torch.device) -> Float[Tensor, "offsets 2"]:
    y, x = (torch.arange(1 - side, side, device=device) for side in window)
    return torch.cartesian_prod(y, x).float()
