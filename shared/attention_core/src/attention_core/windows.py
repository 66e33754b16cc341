"""Windows over an image, shifted or not, and attention inside them with a learned bias.

A learned bias is what makes window attention slow to train: scaled_dot_product_attention leaves its
fused path as soon as the bias needs a gradient, and keeps every attention map for the backward
pass. :func:`window_attention` runs the forward pass fused and recomputes the maps in the backward
pass, a few windows at a time, where the gradient of the bias is a sum over windows.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attention_core.attention import attend, cached_per_size, split_heads
from attention_core.linear import token_linear
from attention_core.strips import may_cut

MASKED = -100.0
"""What Swin and its successors add to the logits of pairs that only the shift brought together."""
MAPS_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}
"""Attention maps that the backward pass holds at a time; on a CPU they should stay in its cache."""
NARROW = 8
"""Up to this head size a CPU's fused kernel is slower than products over maps in its cache."""
LOG2E, SMALL = math.log2(math.e), 1e-25
PIECE_BYTES = 16 << 20
"""Of queries, keys and values that window attention holds at a time on a CPU, in inference."""
ALIGNMENT = 8
"""Head sizes are padded to a multiple of this: what fused kernels take, and what runs fast."""


@dataclass(frozen=True)
class WindowGrid:
    """How maps of ``size`` are cut into windows after a cyclic shift up and left by ``shift``.

    Without a shift the windows of each image come row by row. With one, they come by *kind*, and
    images within a kind: the windows that the shift left whole, then those of the last column, of
    the last row, and of the corner. Windows of one kind share one mask, so nothing grows with the
    number of windows.

    Raises:
        ValueError: when the windows do not tile the map, or the shift exceeds a window.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for side, window, shift in zip(self.size, self.window, self.shift, strict=True):
            if window < 1 or side < 1 or side % window:
                raise ValueError(
                    f"a map of {self.size[0]} x {self.size[1]} is not a whole number of windows of "
                    f"{self.window[0]} x {self.window[1]}: pad it to a multiple first"
                )
            if not 0 <= shift < window:
                raise ValueError(f"shift={self.shift}: must be at least 0 and below {self.window}")

    @property
    def shifted(self) -> bool:
        return self.shift != (0, 0)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Windows of each kind in one image: whole, last column, last row, corner."""
        rows, columns = (s // w for s, w in zip(self.size, self.window, strict=True))
        if not self.shifted:
            return rows * columns, 0, 0, 0
        return (rows - 1) * (columns - 1), rows - 1, columns - 1, 1

    def partition(self, image: Float[Tensor, "b h w dim"]) -> Float[Tensor, "windows tokens dim"]:
        """The windows of a batch of maps, rows of a window one after another."""
        if not self.shifted:
            (height, width), window = self.size, self.window
            return rearrange(
                image,
                "b (row y) (column x) dim -> (b row column) (y x) dim",
                row=height // window[0],
                column=width // window[1],
            )
        tokens = rearrange(image, "b h w dim -> (b h w) dim")
        there, back = self._order(len(image), image.device)
        taken = _reorder(tokens, there, back)
        return rearrange(taken, "(n tokens) dim -> n tokens dim", tokens=self._tokens)

    def merge(self, windows: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "b h w dim"]:
        """The maps that :meth:`partition` cut."""
        height, width = self.size
        if not self.shifted:
            return rearrange(
                windows,
                "(b row column) (y x) dim -> b (row y) (column x) dim",
                row=height // self.window[0],
                column=width // self.window[1],
                y=self.window[0],
            )
        tokens = rearrange(windows, "n tokens dim -> (n tokens) dim")
        there, back = self._order(len(tokens) // (height * width), windows.device)
        put = _reorder(tokens, back, there)
        return rearrange(put, "(b h w) dim -> b h w dim", h=height, w=width)

    def masks(self, device: torch.device) -> Float[Tensor, "kinds tokens tokens"]:
        """Added to the logits of each kind: 0, or ``MASKED`` between what was not adjacent."""
        return _kind_masks(self.window, self.shift, device)

    @property
    def _tokens(self) -> int:
        return self.window[0] * self.window[1]

    def _order(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        order = _kind_order(batch, self.size, self.window, self.shift, device)
        return order[0], order[1]


def window_attention(
    query: Float[Tensor, "windows heads queries dim"],
    key: Float[Tensor, "windows heads keys dim"],
    value: Float[Tensor, "windows heads keys dim"],
    bias: Float[Tensor, "heads queries keys"] | None = None,
    grid: WindowGrid | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "windows heads queries dim"]:
    """Attention inside each window, fused in both passes even where ``bias`` learns.

    Args:
        query: one vector per head and position of each window.
        key: likewise; a window may look at more keys than it has queries.
        value: likewise.
        bias: added to the logits of every window.
        grid: where the windows come from; with a shift its masks are added too.
        scale: of the logits; 1/sqrt(dim) by default.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if grid is None or not grid.shifted:
        counts, biases = [len(query)], None if bias is None else bias[None]
    else:
        masks = grid.masks(query.device)[:, None].to(query.dtype if bias is None else bias.dtype)
        images = len(query) // sum(grid.counts)
        counts = [images * count for count in grid.counts]
        biases = masks if bias is None else bias + masks
    learns = biases is not None and torch.is_grad_enabled() and biases.requires_grad
    if learns or (_narrow(query) and torch.is_grad_enabled()):
        if biases is not None:
            biases = biases.expand(-1, query.shape[1], -1, -1)
        return _kinds_attention(query, key, value, biases, counts, scale).transpose(1, 2)
    return _attend_kinds(query, key, value, biases, counts, scale).transpose(1, 2)


def convolve(
    conv: Callable[[Tensor], Tensor], x: Float[Tensor, "b h w dim"]
) -> Float[Tensor, "b new_h new_w out"]:
    """A two-dimensional ``conv`` of maps whose last axis is the channels; nothing is copied."""
    return rearrange(conv(rearrange(x, "b h w dim -> b dim h w")), "b out h w -> b h w out")


def pad_heads(
    parameter: Float[Tensor, "dims *rest"], head_dim: int, extra: int
) -> Float[Tensor, "padded *rest"]:
    """``extra`` zeros at the end of each head of a weight: what it gives is padded, uncopied."""
    if not extra:
        return parameter
    heads = rearrange(parameter, "(heads d) ... -> heads d ...", d=head_dim)
    return F.pad(heads, (0, 0) * (parameter.ndim - 1) + (0, extra)).flatten(0, 1)


def relative_position_index(
    window: tuple[int, int], device: torch.device
) -> Int[Tensor, "tokens tokens"]:
    """Row of a relative position table for each pair of positions in a window.

    The table has (2h-1)(2w-1) rows; the pair (i, j) reads row
    (y_i - y_j + h - 1)(2w - 1) + x_i - x_j + w - 1, as in Swin and its successors.
    """
    return _relative_position_index(window, device)


def relative_position_bias(
    table: Float[Tensor, "offsets heads"], window: tuple[int, int]
) -> Float[Tensor, "heads tokens tokens"]:
    """The bias of each head for each pair of positions, read from a table of offsets."""
    height, width = window
    # Each position sees a window-sized piece of the table upside down: a fold backwards, where
    # indexing would scatter.
    image = rearrange(table, "(y x) heads -> 1 heads y x", y=2 * height - 1)
    pieces = rearrange(F.unfold(image, window), "1 (heads y x) i -> heads i y x", y=height, x=width)
    return pieces.flip(2, 3).flatten(2)


class WindowAttention(nn.Module):
    """Self-attention in windows with a learned bias per head and offset (Swin Transformer, Eq. 4).

    ``alignment`` pads each head with zeros to a multiple of it, which changes no result; 1 turns
    that off, for counting operations.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: tuple[int, int],
        *,
        qkv_bias: bool = True,
        alignment: int = ALIGNMENT,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} is not a multiple of heads={heads}")
        self.heads, self.window, self.alignment = heads, window, alignment
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.table = nn.Parameter(torch.empty(offsets, heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(
        self, x: Float[Tensor, "b h w dim"], shift: tuple[int, int] = (0, 0)
    ) -> Float[Tensor, "b h w dim"]:
        size = x.shape[1], x.shape[2]
        WindowGrid(size, self.window, shift)  # complains of sizes that don't fit
        head_dim = x.shape[-1] // self.heads
        extra = -head_dim % self.alignment
        weight = pad_heads(self.qkv.weight, head_dim, extra)
        offset = None if self.qkv.bias is None else pad_heads(self.qkv.bias, head_dim, extra)
        out = pad_heads(self.proj.weight.mT, head_dim, extra).mT
        bias = relative_position_bias(self.table, self.window)

        def attend_to(x: Tensor, shift: tuple[int, int]) -> Tensor:
            grid = WindowGrid((x.shape[1], x.shape[2]), self.window, shift)
            parts = split_heads(token_linear(grid.partition(x), weight, offset), self.heads)
            attended = window_attention(*parts, bias, grid, scale=head_dim**-0.5)
            attended = rearrange(attended, "n heads tokens d -> n tokens (heads d)")
            return grid.merge(token_linear(attended, out, self.proj.bias))

        rows = PIECE_BYTES // (4 * len(weight) * size[1] * self.window[0])
        high = self.window[0] * max(1, rows)
        if torch.is_grad_enabled() or not may_cut(x) or size[0] <= high:
            return attend_to(x, shift)
        # A few rows of windows at a time, then the row that the shift brings together: what lies
        # between is not the size of the map.
        top, end = shift[0], size[0] - -shift[0] % self.window[0]
        parts = [attend_to(part, (0, shift[1])) for part in x[:, top:end].split(high, 1)]
        if top:
            ends = torch.cat([x[:, :top], x[:, end:]], 1)
            first, last = attend_to(ends, shift).split([top, size[0] - end], 1)
            parts = [first, *parts, last]
        return torch.cat(parts, 1)


def _reorder(rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return rows.index_select(0, order)
    return _Reorder.apply(rows, order, back)


class _Reorder(torch.autograd.Function):
    """Rows in another order; a gather in both directions, where indexing would scatter back."""

    @staticmethod
    def forward(rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        return rows.index_select(0, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2], inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        back, order = ctx.saved_tensors
        return _Reorder.apply(grad, back, order), None, None


@cached_per_size
def _kind_order(
    batch: int,
    size: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    device: torch.device,
) -> Int[Tensor, "2 tokens"]:
    """For each place in the windows the token of the image, and for each token its place."""
    image = torch.arange(batch * size[0] * size[1], device=device)
    image = rearrange(image, "(b h w) -> b h w", h=size[0], w=size[1])
    image = image.roll((-shift[0], -shift[1]), (1, 2))
    grid = rearrange(image, "b (row y) (column x) -> row column b y x", y=window[0], x=window[1])
    kinds = grid[:-1, :-1], grid[:-1, -1:], grid[-1:, :-1], grid[-1:, -1:]
    # Images within a kind: window_attention cuts the batch of windows by kind.
    order = torch.cat([rearrange(kind, "r c b y x -> (b r c y x)") for kind in kinds])
    return torch.stack([order, order.argsort()])


@cached_per_size
def _kind_masks(
    window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Float[Tensor, "kinds tokens tokens"]:
    y = torch.arange(window[0], device=device) >= window[0] - shift[0]
    x = torch.arange(window[1], device=device) >= window[1] - shift[1]
    bottom, right = y.repeat_interleave(window[1]), x.repeat(window[0])
    apart_y, apart_x = (part[:, None] != part[None, :] for part in (bottom, right))
    apart = torch.stack([torch.zeros_like(apart_x), apart_x, apart_y, apart_y | apart_x])
    return MASKED * apart.float()


@cached_per_size
def _relative_position_index(
    window: tuple[int, int], device: torch.device
) -> Int[Tensor, "tokens tokens"]:
    height, width = window
    y = torch.arange(height, device=device).repeat_interleave(width)
    x = torch.arange(width, device=device).repeat(height)
    down, right = y[:, None] - y[None, :] + height - 1, x[:, None] - x[None, :] + width - 1
    return down * (2 * width - 1) + right


def _attend_kinds(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    biases: Tensor | None,
    counts: Sequence[int],
    scale: float,
) -> Float[Tensor, "windows queries heads dim"]:
    if _narrow(query):
        attended = _token_major(query)
        for kind, some, maps in _chunks(query, key, counts, copies=1):
            q, k, v = (x[some].flatten(0, 1) for x in (query, key, value))
            weights = _weights(q, k, biases, (kind, some[1]), scale, maps[0])
            # The other way round the product would have few columns, and be slow for it.
            _put(v.mT @ weights.mT, attended, some)
        return attended
    if biases is None:
        return attend(query, key, value, scale=scale).transpose(1, 2)
    parts = zip(query.split(counts), key.split(counts), value.split(counts), biases, strict=True)
    by_kind = [  # fused kernels take a bias of four axes only
        attend(q, k, v, bias, scale=scale).transpose(1, 2) for q, k, v, bias in parts if len(q)
    ]
    return torch.cat(by_kind) if len(by_kind) > 1 else by_kind[0]


def _narrow(query: Tensor) -> bool:
    eager = query.device.type == "cpu" and not torch.compiler.is_compiling()
    return eager and query.dtype in (torch.float32, torch.float64) and query.shape[-1] <= NARROW


@torch.library.custom_op("attention_core::window_attention", mutates_args=())
def _kinds_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    biases: Tensor | None,
    counts: Sequence[int],
    scale: float,
) -> Tensor:
    # Biases that ask for a gradient would leave the fused path even here.
    biases = None if biases is None else biases.detach()
    return _attend_kinds(query, key, value, biases, counts, scale).contiguous()


@_kinds_attention.register_fake
def _(query: Tensor, *others: Any) -> Tensor:
    return _token_major(query)


@torch.library.custom_op("attention_core::window_attention_backward", mutates_args=())
def _kinds_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    biases: Tensor | None,
    counts: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key and value as [windows, tokens, heads, dim], and of the biases."""
    grads = _token_major(query), _token_major(key), _token_major(value)
    grad_biases = _like(biases, query).zero_()
    grad = grad.transpose(1, 2)
    for kind, some, maps in _chunks(query, key, counts, copies=2):
        q, k, v, out = (x[some].flatten(0, 1) for x in (query, key, value, grad))
        weights = _weights(q, k, biases, (kind, some[1]), scale, maps[0])
        _product(out, v.mT, maps[1])
        grad_logits = torch.ops.aten._softmax_backward_data.out(
            maps[1], weights, -1, weights.dtype, grad_input=maps[1]
        )
        if biases is not None:
            total = grad_biases[kind, some[1]]
            total += grad_logits.unflatten(0, (-1, len(total))).sum(0)
        grad_logits, weights = grad_logits.to(q.dtype), weights.to(q.dtype)
        # The other way round these products would have few columns, and be slow for it.
        products = (k, grad_logits.mT, scale), (q, grad_logits, scale), (out, weights, 1.0)
        for (vectors, over, alpha), whole in zip(products, grads, strict=True):
            part = torch.baddbmm(q.new_empty(1, 1, 1), vectors.mT, over, beta=0, alpha=alpha)
            _put(part, whole, some)
    return (*grads, grad_biases)


def _chunks(
    query: Tensor, key: Tensor, counts: Sequence[int], *, copies: int
) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
    """Kind, windows and heads of a few attention maps, and memory for so many copies of them.

    On a CPU they are of one head, whose part of any tensor is a batch of matrices as it lies. The
    memory is the same each time: fresh one would cost as much as the products.
    """
    cpu = query.device.type == "cpu"
    heads = 1 if cpu else query.shape[1]
    map_size = query.shape[2], key.shape[2]
    budget = MAPS_BYTES["cpu" if cpu else "cuda"]
    most = max(1, min(max(counts), budget // (4 * heads * math.prod(map_size))))
    exact = torch.promote_types(query.dtype, torch.float32)
    maps = query.new_empty(copies, most * heads, *map_size, dtype=exact)
    end = 0
    for kind, count in enumerate(counts):
        start, end = end, end + count
        for first in range(start, end, most):
            windows = slice(first, min(first + most, end))
            for head in range(0, query.shape[1], heads):
                some = windows, slice(head, head + heads)
                yield kind, some, maps[:, : (windows.stop - first) * heads]


def _weights(
    query: Tensor,
    key: Tensor,
    biases: Tensor | None,
    which: tuple[int, slice],
    scale: float,
    out: Tensor,
) -> Tensor:
    """Write softmax(scale * query keyᵀ + bias) to ``out``."""
    bias = None if biases is None else biases[which]
    if out.device.type == "cpu":
        # Powers of two, their largest not taken off first, take half of a softmax's time. They
        # serve where no row's sum comes near the ends of what a float holds.
        _logits(query, key, bias, scale, out, unit=LOG2E)
        total = out.exp2_().sum(-1, keepdim=True)
        low, high = total.aminmax()
        if low > SMALL and high < 1 / SMALL:
            return out.mul_(total.reciprocal_())
    _logits(query, key, bias, scale, out)
    return torch.softmax(out, -1, out=out)


def _logits(
    query: Tensor, key: Tensor, bias: Tensor | None, scale: float, out: Tensor, unit: float = 1.0
) -> None:
    if bias is not None:
        maps = out.unflatten(0, (-1, len(bias)))
        torch.mul(bias.expand_as(maps), unit, out=maps)
    _product(query, key.mT, out, alpha=scale * unit, add=bias is not None)


def _put(
    part: Float[Tensor, "maps dim tokens"],
    whole: Float[Tensor, "windows tokens heads dim"],
    some: tuple[slice, slice],
) -> None:
    place = whole[some[0], :, some[1]]
    place.copy_(part.unflatten(0, (-1, place.shape[2])).permute(0, 3, 1, 2))


def _product(a: Tensor, b: Tensor, out: Tensor, *, alpha: float = 1.0, add: bool = False) -> None:
    """Write, or add, ``alpha * a @ b`` to ``out``, which may be of a wider type."""
    if a.dtype == out.dtype:
        out.baddbmm_(a, b, beta=int(add), alpha=alpha)
    elif add:
        out.add_(a @ b, alpha=alpha)
    else:
        torch.mul(a @ b, alpha, out=out)


@_kinds_attention_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, biases: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = _token_major(query), _token_major(key), _token_major(value)
    return (*grads, _like(biases, query))


def _like(biases: Tensor | None, query: Tensor) -> Tensor:
    if biases is None:
        return query.new_empty(0)
    return torch.empty_like(biases, memory_format=torch.contiguous_format)


def _token_major(x: Float[Tensor, "windows heads tokens dim"]) -> Tensor:
    windows, heads, tokens, dim = x.shape
    return x.new_empty(windows, tokens, heads, dim)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.counts, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _kinds_attention_backward(grad, *ctx.saved_tensors, ctx.counts, ctx.scale)
    query, key, value = (part.transpose(1, 2) for part in grads[:3])
    biases = grads[3] if ctx.needs_input_grad[3] else None
    return query, key, value, biases, None, None


_kinds_attention.register_autograd(_backward, setup_context=_save)
