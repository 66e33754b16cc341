"""Dynamic-range histogram self-attention."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class HistogramAttention(nn.Module):
    """Attention between pixels of like intensity, wherever they are (DHSA).

    Half of the channels are sorted down and across before the convolutions, so that these mix like
    pixels (dynamic-range convolution). Then all pixels of a channel are ranked by their value and
    cut into as many bins as there are heads; the product of attention within the bins and across
    them is put back into the image.
    """

    def __init__(self, dim: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 5 * dim, 1, bias=bias)
        self.mix = nn.Conv2d(5 * dim, 5 * dim, 3, padding=1, groups=5 * dim, bias=bias)
        self.out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b dim h w"]:
        halves = [x.shape[1] // 2, x.shape[1] - x.shape[1] // 2]
        ranged, plain = x.split(halves, 1)
        order = dynamic_range_order(ranged)
        x = torch.cat([permute(ranged.flatten(2), order).view_as(ranged), plain], 1)
        qkv = rearrange(self.mix(self.qkv(x)), "b (five dim) h w -> five b dim (h w)", five=5)
        attended = histogram_attention(qkv, self.temperature).unflatten(2, x.shape[2:])
        ranged, plain = self.out(attended).split(halves, 1)
        return torch.cat([restore(ranged.flatten(2), order).view_as(ranged), plain], 1)


def dynamic_range_order(x: Float[Tensor, "b c h w"]) -> Int[Tensor, "b c hw"]:
    """Where each pixel comes from when columns are sorted upwards, and then rows."""
    values, rows = x.detach().sort(-2)
    columns = values.argsort(-1)
    return (rows.gather(-1, columns) * x.shape[-1] + columns).flatten(2)


def histogram_attention(
    qkv: Float[Tensor, "5 b dim n"], temperature: Float[Tensor, "heads 1 1"]
) -> Float[Tensor, "b dim n"]:
    """Attention within and across bins of like value; as many bins as heads.

    Each channel has its own ranking, that of its values, so that rows of a head meet at equal
    ranks and not at equal places.

    Args:
        qkv: query and key within bins, query and key across bins, value.
        temperature: of each head's logits.
    """
    bins, n, kind = len(temperature), qkv.shape[-1], qkv.dtype
    qkv = qkv.to(torch.promote_types(kind, torch.float32))  # sums over all pixels
    order = qkv[4].detach().argsort(-1)
    ranked = F.pad(permute(qkv, order), (0, -n % bins))
    query_within, key_within, query_across, key_across, value = ranked

    def attended(query: Tensor, key: Tensor, layout: str) -> Tensor:
        flat, binned = f"b (head c) ({layout})", "b head (c bin) m"
        q, k, v = (
            rearrange(x, f"{flat} -> {binned}", head=bins, bin=bins) for x in (query, key, value)
        )
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * temperature
        return rearrange(softmax_1(logits) @ v, f"{binned} -> {flat}", bin=bins)

    within = attended(query_within, key_within, "bin m")
    across = attended(query_across, key_across, "m bin")
    return restore((within * across)[..., :n], order).to(kind)


def softmax_1(logits: Float[Tensor, "*batch keys"]) -> Float[Tensor, "*batch keys"]:
    """exp(x) / (1 + sum exp(x)): a softmax that may also give its weight to nothing."""
    return F.pad(logits, (0, 1)).softmax(-1)[..., :-1]


def permute(
    x: Float[Tensor, "*more b c n"], order: Int[Tensor, "b c n"]
) -> Float[Tensor, "*more b c n"]:
    """The pixels of each channel in another order."""
    return _Permute.apply(x, order)


def restore(
    x: Float[Tensor, "*more b c n"], order: Int[Tensor, "b c n"]
) -> Float[Tensor, "*more b c n"]:
    """Undo :func:`permute`."""
    return _Restore.apply(x, order)


class _Permute(torch.autograd.Function):
    """A gather whose gradient is a scatter; autograd would add up, knowing of no permutation."""

    @staticmethod
    def forward(x: Tensor, order: Tensor) -> Tensor:
        return x.gather(-1, order.expand_as(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Restore.apply(grad, *ctx.saved_tensors), None


class _Restore(torch.autograd.Function):
    """The other way round."""

    @staticmethod
    def forward(x: Tensor, order: Tensor) -> Tensor:
        return torch.empty_like(x).scatter_(-1, order.expand_as(x), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Permute.apply(grad, *ctx.saved_tensors), None
