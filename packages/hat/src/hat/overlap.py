"""Overlapping cross-attention: windows of queries that look at larger windows of keys."""

from typing import Any

import torch
import torch.nn.functional as F
from attention_core import WindowGrid, pad_heads, token_linear, window_attention
from attention_core.windows import ALIGNMENT
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class OverlappingCrossAttention(nn.Module):
    """Attention of each window to itself and ``overlap`` pixels around it (OCA, Eq. 5).

    Beyond the image keys and values are zero; they take part in the softmax. ``alignment`` is as
    in ``attention_core.WindowAttention``.
    """

    def __init__(
        self, dim: int, heads: int, window: int, overlap: int, *, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.window, self.overlap = heads, window, overlap
        self.alignment = ALIGNMENT
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.empty((2 * (window + overlap) - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        head_dim = x.shape[-1] // self.heads
        extra = -head_dim % self.alignment
        weight = pad_heads(self.qkv.weight, head_dim, extra)
        offset = None if self.qkv.bias is None else pad_heads(self.qkv.bias, head_dim, extra)
        out = pad_heads(self.proj.weight.mT, head_dim, extra).mT

        grid = WindowGrid((x.shape[1], x.shape[2]), (self.window, self.window))
        qkv = token_linear(x, weight, offset)
        width = len(weight) // 3
        query, keys = qkv.split((width, 2 * width), -1)
        query = rearrange(grid.partition(query), "n q (heads d) -> n heads q d", heads=self.heads)
        keys = _OverlappingWindows.apply(keys, self.window, self.overlap)
        key, value = rearrange(
            keys, "n k (two heads d) -> two n heads k d", two=2, heads=self.heads
        )
        attended = window_attention(query, key, value, self.bias(), scale=head_dim**-0.5)
        attended = rearrange(attended, "n heads q d -> n q (heads d)")
        return token_linear(grid.merge(attended), out, self.proj.bias)

    def bias(self) -> Float[Tensor, "heads queries keys"]:
        """Of each head for each pair of a query and a key, read off the table of offsets.

        The authors' index of an offset is negative for some pairs and counts from the table's end:
        theirs is the table of offsets rolled by a constant.
        """
        # With o the side of a window of keys and l that of the table, key - query + (w - o + 1) on
        # both axes, where key - query + (w - 1) would start at 0: (o - 2) rows and columns earlier.
        side = 2 * (self.window + self.overlap) - 1
        table = self.table.roll((self.window + 2 * self.overlap - 2) * (side + 1), 0)
        image = rearrange(table, "(y x) heads -> 1 heads y x", y=side)
        # Each query sees a piece of the table of the size of a window of keys, the last query the
        # first; a fold backwards, where indexing would scatter.
        pieces = F.unfold(image, self.window + 2 * self.overlap)
        return rearrange(pieces, "1 (heads k) q -> heads q k", heads=self.heads).flip(1)


class _OverlappingWindows(torch.autograd.Function):
    """Windows that reach beyond their place on every side, zeros outside the image."""

    @staticmethod
    def forward(
        image: Float[Tensor, "b h w dim"], window: int, overlap: int
    ) -> Float[Tensor, "n tokens dim"]:
        padded = F.pad(image, (0, 0) + (overlap,) * 4)
        side = window + 2 * overlap
        windows = padded.unfold(1, side, window).unfold(2, side, window)
        return rearrange(windows, "b row column dim y x -> (b row column) (y x) dim")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, ctx.window, ctx.overlap = inputs
        ctx.shape = image.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        window, overlap, (batch, height, width, dim) = ctx.window, ctx.overlap, ctx.shape
        rows, columns, side = height // window, width // window, window + 2 * overlap
        grad = rearrange(
            grad, "(b row column) (y x) dim -> b row y column x dim", b=batch, row=rows, y=side
        )
        # Cut into pieces of at most a window, whose places in the image do not overlap.
        pieces = -(-side // window)
        whole = grad.new_zeros(batch, rows - 1 + pieces, window, columns - 1 + pieces, window, dim)
        for row in range(pieces):
            for column in range(pieces):
                piece = grad[
                    :, :, row * window : (row + 1) * window,
                    :, column * window : (column + 1) * window,
                ]  # fmt: skip
                place = whole[:, row : row + rows, : piece.shape[2], column : column + columns]
                place[:, :, :, :, : piece.shape[4]] += piece
        image = rearrange(whole, "b row y column x dim -> b (row y) (column x) dim")
        return image[:, overlap : overlap + height, overlap : overlap + width], None, None
