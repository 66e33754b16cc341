"""Manhattan self-attention (MaSA): attention whose logits fall with the Manhattan distance."""

from dataclasses import dataclass
from functools import partial

import torch
from attention_core import TokenLinear, attend, cached_per_size
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor, nn

from rmt.convolution import DepthwiseConv

FEW_KEYS = 64
"""Up to this many keys, separate products beat the fused kernel on a CPU."""
VECTOR = 16
"""Below this many keys, a CPU's softmax is fast only along another axis than the last."""
KEPT_BIAS = 1 << 24
"""Elements of the largest whole-map bias that is kept from call to call (64 MiB in float32)."""
STRIP_QUERIES = 512
"""Queries that share one strip of a whole-map bias too large to build at once."""


@dataclass(frozen=True)
class Decay:
    """How the logits of each head fall with distance: by log(1 - 2^-(start + spread h / heads)).

    Head 0 looks nearest. The paper calls ``start`` a, and ``start + spread`` b (Eq. 3, Table 12).
    A ``start`` of 64 switches the decay off.
    """

    heads: int
    start: float
    spread: float

    def log_rates(self, device: torch.device) -> Float[Tensor, "heads"]:
        """The logarithm of each head's decay per step, negative."""
        head = torch.arange(self.heads, dtype=torch.float64, device=device)
        return torch.log1p(-(2.0 ** -(self.start + self.spread * head / self.heads))).float()


@dataclass(frozen=True)
class Geometry:
    """What the blocks of one stage share for maps of one size."""

    turn: Complex[Tensor, "h w 1 1 pairs"]
    bias: tuple[Tensor, ...]
    """Logit biases: of a row and of a column, or of the whole map; none where it comes in strips"""


def geometry(
    decay: Decay, head_dim: int, decomposed: bool, x: Float[Tensor, "b h w dim"]
) -> Geometry:
    """Rotation and decay of the maps ``x``; kept from call to call unless they are large."""
    (h, w), device = x.shape[1:3], x.device
    turn = rotation(h, w, head_dim, device)
    if decomposed:
        rows, columns = (line_bias(decay, side, device) for side in (w, h))
        return Geometry(turn, (rows, columns))
    size = decay.heads * (h * w) ** 2
    if size <= KEPT_BIAS:
        return Geometry(turn, (kept_map_bias(decay, h, w, device),))
    if torch.is_grad_enabled():  # autograd would hold every strip of every block
        return Geometry(turn, (map_bias(decay, h, w, slice(0, h), device),))
    return Geometry(turn, ())


@cached_per_size
def rotation(
    h: int, w: int, head_dim: int, device: torch.device
) -> Complex[Tensor, "h w 1 1 pairs"]:
    """Turns of queries and keys, as RetNet's: position t by t / 10000^(pair / (pairs - 1)).

    A position's t counts along the rows, so it depends on the map's width. In float32 throughout:
    the angles of a large map's last positions are as the checkpoints saw them. The length of a
    factor is head_dim^-1/4, which scales the logits by head_dim^-1/2.
    """
    frequencies = 1.0 / 10000 ** torch.linspace(0, 1, head_dim // 2, device=device)
    positions = torch.arange(h * w, device=device, dtype=torch.float32)
    angles = rearrange(positions, "(h w) -> h w 1 1 1", h=h) * frequencies
    return torch.polar(torch.full_like(angles, head_dim**-0.25), angles)


@cached_per_size
def line_bias(decay: Decay, length: int, device: torch.device) -> Float[Tensor, "heads l l"]:
    """The bias between the positions of one row or column."""
    position = torch.arange(length, device=device, dtype=torch.float32)
    return distances(position, position) * decay.log_rates(device)[:, None, None]


def map_bias(
    decay: Decay, h: int, w: int, rows: slice, device: torch.device
) -> Float[Tensor, "heads queries keys"]:
    """The bias from the positions in ``rows`` to all positions of a map (Eq. 4)."""
    y = torch.arange(h, device=device, dtype=torch.float32)
    x = torch.arange(w, device=device, dtype=torch.float32)
    down, along = distances(y[rows], y), distances(x, x)
    manhattan = rearrange(down, "q k -> q 1 k 1") + rearrange(along, "q k -> 1 q 1 k")
    manhattan = rearrange(manhattan, "y x row column -> (y x) (row column)")
    return manhattan * decay.log_rates(device)[:, None, None]


@partial(cached_per_size, most=4)
def kept_map_bias(
    decay: Decay, h: int, w: int, device: torch.device
) -> Float[Tensor, "heads hw hw"]:
    """`map_bias` of all rows, kept."""
    return map_bias(decay, h, w, slice(0, h), device)


def decay_map(decay: Decay, h: int, w: int, row: int, column: int) -> Float[Tensor, "heads h w"]:
    """What the decay leaves of each position's weight, seen from one position: 1 at itself.

    Raises:
        ValueError: for a position outside the map.
    """
    if not (0 <= row < h and 0 <= column < w):
        raise ValueError(f"token ({row}, {column}) lies outside the map of {h} x {w}")
    cpu = torch.device("cpu")
    seen = map_bias(decay, h, w, slice(row, row + 1), cpu)[:, column].exp()
    return rearrange(seen, "heads (h w) -> heads h w", h=h)


def distances(a: Float[Tensor, "m"], b: Float[Tensor, "n"]) -> Float[Tensor, "m n"]:
    return (a[:, None] - b).abs()


class ManhattanAttention(nn.Module):
    """MaSA with local context enhancement (Sec. 3.2, 3.3).

    The paper multiplies the softmax by the decay (Eq. 5, 6); the authors' checkpoints were trained
    with its logarithm added to the logits, and with queries and keys rotated as in RetNet.

    Args:
        dim: channels.
        decay: of each head; ``dim / heads`` must be even.
        decomposed: attention along the rows, then along the columns (Eq. 6), instead of over the
            whole map at once.
    """

    def __init__(self, dim: int, decay: Decay, *, decomposed: bool) -> None:
        super().__init__()
        self.decay, self.decomposed = decay, decomposed
        self.head_dim = dim // decay.heads
        self.query_key = TokenLinear(dim, 2 * dim)
        self.value = TokenLinear(dim, dim)
        self.local_context = DepthwiseConv(dim, 5)
        self.out = TokenLinear(dim, dim)

    def geometry(self, x: Float[Tensor, "b h w dim"]) -> Geometry:
        """What :meth:`forward` needs for maps of this size."""
        return geometry(self.decay, self.head_dim, self.decomposed, x)

    def forward(
        self, x: Float[Tensor, "b h w dim"], shared: Geometry
    ) -> Float[Tensor, "b h w dim"]:
        query_key = self.query_key(x).unflatten(-1, (2, -1, self.head_dim))
        value = self.value(x)
        local = self.local_context(value)
        attend_map = self.axial if self.decomposed else self.whole
        attended = attend_map(
            rotate(query_key, shared.turn), value.unflatten(-1, (-1, self.head_dim)), shared
        )
        return self.out((local.unflatten(-1, attended.shape[-2:]) + attended).flatten(-2))

    def axial(
        self,
        query_key: Float[Tensor, "b h w two n d"],
        value: Float[Tensor, "b h w n d"],
        shared: Geometry,
    ) -> Float[Tensor, "b h w n d"]:
        """Each row for itself, then each column over what the rows gave."""
        row_bias, column_bias = shared.bias
        h, w = value.shape[1:3]
        query, key = rearrange(query_key, "b h w two n d -> two (b h) n w d")
        value = attend_near(query, key, rearrange(value, "b h w n d -> (b h) n w d"), row_bias)
        query, key = rearrange(query_key, "b h w two n d -> two (b w) n h d")
        value = rearrange(value, "(b h) n w d -> (b w) n h d", h=h)
        return rearrange(
            attend_near(query, key, value, column_bias), "(b w) n h d -> b h w n d", w=w
        )

    def whole(
        self,
        query_key: Float[Tensor, "b h w two n d"],
        value: Float[Tensor, "b h w n d"],
        shared: Geometry,
    ) -> Float[Tensor, "b h w n d"]:
        """Every position to every other of its map."""
        h, w = value.shape[1:3]
        q, k = rearrange(query_key, "b h w two n d -> two b n (h w) d")
        v = rearrange(value, "b h w n d -> b n (h w) d")
        if shared.bias:
            attended = attend_near(q, k, v, shared.bias[0])
        else:
            rows = max(1, STRIP_QUERIES // w)
            strips = [slice(top, min(top + rows, h)) for top in range(0, h, rows)]
            attended = torch.cat(
                [
                    attend_near(
                        q[:, :, strip.start * w : strip.stop * w],
                        k,
                        v,
                        map_bias(self.decay, h, w, strip, q.device),
                    )
                    for strip in strips
                ],
                dim=2,
            )
        return rearrange(attended, "b n (h w) d -> b h w n d", h=h)


def rotate(
    x: Float[Tensor, "b h w two n d"], turn: Complex[Tensor, "h w 1 1 pairs"]
) -> Float[Tensor, "b h w two n d"]:
    """Turn each pair of neighbouring channels, read as a complex number."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def attend_near(
    query: Float[Tensor, "batch n queries d"],
    key: Float[Tensor, "batch n keys d"],
    value: Float[Tensor, "batch n keys d"],
    bias: Float[Tensor, "n queries keys"],
) -> Float[Tensor, "batch n queries d"]:
    """softmax(query keyᵀ + bias) value."""
    if query.device.type == "cpu" and bias.shape[-2:].numel() <= FEW_KEYS**2:
        q, k, v = (x.flatten(0, 1) for x in (query, key, value))
        short = bias.shape[-1] < VECTOR
        logits = torch.bmm(k, q.mT) if short else torch.bmm(q, k.mT)
        logits = logits.unflatten(0, query.shape[:2]).add_(bias.mT if short else bias)
        weights = logits.softmax(-2 if short else -1).to(v.dtype).flatten(0, 1)
        return torch.bmm(weights.mT if short else weights, v).unflatten(0, query.shape[:2])
    return attend(query, key, value, bias, scale=1.0)
