"""Dynamic-range histogram self-attention."""

import torch
import torch.nn.functional as F
from attention_core import TokenConv, convolve
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from histoformer.ranking import permute, restore, sort


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
        self.qkv = TokenConv(dim, 5 * dim, bias=bias)
        self.mix = nn.Conv2d(5 * dim, 5 * dim, 3, padding=1, groups=5 * dim, bias=bias)
        self.out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        _, height, width, dim = x.shape
        halves = [dim // 2, dim - dim // 2]
        ranged, plain = x.split(halves, -1)
        ranged, order = dynamic_range(rearrange(ranged, "b h w c -> b c h w"))
        x = torch.cat([rearrange(ranged, "b c (h w) -> b h w c", h=height), plain], -1)
        qkv = rearrange(
            convolve(self.mix, self.qkv(x)), "b h w (five dim) -> five b dim (h w)", five=5
        )
        attended = histogram_attention(qkv, self.temperature).unflatten(2, (height, width))
        ranged, plain = self.out(attended).flatten(2).split(halves, 1)
        attended = torch.cat([restore(ranged, order), plain], 1)
        return rearrange(attended, "b dim (h w) -> b h w dim", h=height)


def dynamic_range(
    x: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c hw"], Int[Tensor, "b c hw"]]:
    """Columns sorted upwards, and then rows; and where each pixel comes from."""
    x, rows = sort(x.mT)
    x, columns = sort(x.mT)
    order = rows.mT.gather(-1, columns) * x.shape[-1] + columns
    return x.flatten(2), order.flatten(2)


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
    others, value = qkv.split([4, 1])
    value, order = sort(value[0])
    ranked = [*permute(others, order), value]
    if n % bins:
        ranked = [F.pad(x, (0, -n % bins)) for x in ranked]
    query_within, key_within, query_across, key_across, value = ranked

    def attended(query: Tensor, key: Tensor, layout: str) -> Tensor:
        flat, binned = f"b (head c) ({layout})", "b head (c bin) m"
        q, k, v = (
            rearrange(x, f"{flat} -> {binned}", head=bins, bin=bins) for x in (query, key, value)
        )
        logits = q @ k.mT * temperature * inverse_norm(q) * inverse_norm(k).mT
        return rearrange(softmax_1(logits) @ v, f"{binned} -> {flat}", bin=bins)

    within = attended(query_within, key_within, "bin m")
    across = attended(query_across, key_across, "m bin")
    return restore((within * across)[..., :n], order).to(kind)


def inverse_norm(x: Float[Tensor, "*batch rows n"]) -> Float[Tensor, "*batch rows 1"]:
    """One over the length of each row."""
    return x.square().sum(-1, keepdim=True).clamp_min(1e-24).rsqrt()


def softmax_1(logits: Float[Tensor, "*batch keys"]) -> Float[Tensor, "*batch keys"]:
    """exp(x) / (1 + sum exp(x)): a softmax that may also give its weight to nothing."""
    return F.pad(logits, (0, 1)).softmax(-1)[..., :-1]
