"""R-MSA with EPEG, and CR-MSA: attention within regions, then across them."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from attention_core import attend
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rrt_mil.regions import Layout

if TYPE_CHECKING:
    from rrt_mil.encoder import R2TConfig


class Attention(nn.Module):
    """Multi-head softmax attention among the tokens of each row."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "rows tokens dim"],
        exists: Bool[Tensor, "rows tokens"] | None = None,
    ) -> Float[Tensor, "rows tokens dim"]:
        """Attention over all tokens, or over those that exist."""
        return self.project(self.attended(x, exists))

    def attended(
        self, x: Float[Tensor, "rows tokens dim"], exists: Bool[Tensor, "rows tokens"] | None = None
    ) -> Float[Tensor, "rows tokens dim"]:
        """The heads' outputs side by side."""
        query, key, value = self.qkv(x).chunk(3, -1)
        return self.mix(query, key, value, exists)

    def project(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """The output projection."""
        return self.dropout(self.out(x))

    def mix(
        self,
        query: Float[Tensor, "rows tokens dim"],
        key: Float[Tensor, "rows tokens dim"],
        value: Float[Tensor, "rows tokens dim"],
        exists: Bool[Tensor, "rows tokens"] | None,
    ) -> Float[Tensor, "rows tokens dim"]:
        mask = None if exists is None else exists[:, None, None]
        attended = attend(self.split(query), self.split(key), self.split(value), mask)
        return rearrange(attended, "rows heads tokens dim -> rows tokens (heads dim)")

    def split(
        self, x: Float[Tensor, "rows tokens dim"]
    ) -> Float[Tensor, "rows heads tokens head_dim"]:
        return rearrange(x, "rows tokens (heads dim) -> rows heads tokens dim", heads=self.heads)


class EPEGAttention(Attention):
    """Attention with the embedded position encoding generator (EPEG), in its fused form.

    EPEG adds to the logits their convolution along the query axis, one row of taps per head. The
    logits are linear in the query, so convolving the query gives the same without ever holding
    tokens x tokens numbers.
    """

    def __init__(
        self, dim: int, heads: int, kernel: int, *, qkv_bias: bool, dropout: float
    ) -> None:
        super().__init__(dim, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.taps = nn.Parameter(torch.empty(heads, 1, kernel, 1))
        # One constant per head on all its logits, which the softmax cancels: it is kept for the
        # authors' checkpoints, and neither applied nor trained.
        self.bias = nn.Parameter(torch.zeros(heads), requires_grad=False)
        nn.init.xavier_normal_(self.taps)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, exists: Tensor | None
    ) -> Float[Tensor, "rows tokens dim"]:
        if exists is not None:
            query = query * exists[..., None].to(query.dtype)
        return super().mix(self.convolve(query), key, value, exists)

    def convolve(self, query: Float[Tensor, "rows tokens dim"]) -> Float[Tensor, "rows tokens dim"]:
        """The query plus its convolution along the tokens of a region.

        Stated as a depth-wise 2-D convolution of a channels-last picture one token wide: several
        times faster on a CPU than a 1-D one, and its output is contiguous where fused attention
        needs it.
        """
        kernel, dim = self.taps.shape[2], query.shape[-1]
        identity = F.one_hot(torch.tensor(kernel // 2, device=query.device), kernel)[:, None]
        weight = repeat(
            self.taps + identity, "heads 1 k 1 -> (heads dim) 1 k 1", dim=dim // self.heads
        )
        picture = rearrange(query, "rows tokens dim -> rows dim tokens 1")
        convolved = F.conv2d(picture, weight, padding=(kernel // 2, 0), groups=dim)
        return rearrange(convolved, "rows dim tokens 1 -> rows tokens dim")


class EPEG2DAttention(Attention):
    """EPEG with a square kernel over queries and keys (ablation): the logits must be held."""

    def __init__(
        self, dim: int, heads: int, kernel: int, *, qkv_bias: bool, dropout: float
    ) -> None:
        super().__init__(dim, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.taps = nn.Parameter(torch.empty(heads, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(heads), requires_grad=False)  # as in EPEGAttention
        nn.init.xavier_normal_(self.taps)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, exists: Tensor | None
    ) -> Float[Tensor, "rows tokens dim"]:
        query, key, value = map(self.split, (query, key, value))
        logits = query @ key.mT * query.shape[-1] ** -0.5
        if exists is not None:
            logits = logits.masked_fill(~(exists[:, None, :, None] & exists[:, None, None]), 0)
        pad = self.taps.shape[-1] // 2
        logits = logits + F.conv2d(logits, self.taps, padding=pad, groups=self.heads)
        if exists is not None:
            logits = logits.masked_fill(~exists[:, None, None], -torch.inf)
        return rearrange(
            logits.softmax(-1) @ value, "rows heads tokens dim -> rows tokens (heads dim)"
        )


class ValueEPEGAttention(Attention):
    """A convolution of the values over the region's square instead of EPEG (ablation).

    Args:
        dim: width of a token.
        heads: attention heads.
        kernel: side of the kernel, odd.
        square: whether the kernel is square; else it is one column.
        before: whether the convolved values are attended to as well, or only added to the output.
        qkv_bias: whether queries, keys and values have biases.
        dropout: rate after the output projection.
        bias: whether the convolution has one.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel: int,
        *,
        square: bool,
        before: bool,
        qkv_bias: bool,
        dropout: float,
        bias: bool,
    ) -> None:
        super().__init__(dim, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.before = before
        size, pad = ((kernel, kernel), kernel // 2) if square else ((kernel, 1), (kernel // 2, 0))
        self.position = nn.Conv2d(dim, dim, size, padding=pad, groups=dim, bias=bias)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, exists: Tensor | None
    ) -> Float[Tensor, "rows tokens dim"]:
        if exists is not None:
            raise ValueError("EPEG on values takes no mask: give a list of bags instead")
        encoding = self.encode(value)
        if self.before:
            return super().mix(query, key, value + encoding, exists)
        return super().mix(query, key, value, exists) + encoding

    def encode(self, value: Float[Tensor, "rows tokens dim"]) -> Float[Tensor, "rows tokens dim"]:
        # The published code numbers channels (dim heads) going in and (heads dim) coming out.
        side = round(value.shape[1] ** 0.5)
        into = "rows (y x) (heads dim) -> rows (dim heads) y x"
        encoding = self.position(rearrange(value, into, y=side, heads=self.heads))
        return rearrange(encoding, "rows dim y x -> rows (y x) dim")


class RegionalAttention(nn.Module):
    """R-MSA: each region attends within itself."""

    def __init__(self, config: "R2TConfig") -> None:
        super().__init__()
        self.layout = config.layout
        dim, heads, kernel = config.dim, config.heads, config.epeg_k
        options: Any = {"qkv_bias": config.qkv_bias, "dropout": config.dropout}
        self.attention: Attention
        if config.epeg == "none":
            self.attention = Attention(dim, heads, **options)
        elif config.epeg == "logits":
            form = EPEG2DAttention if config.epeg_2d else EPEGAttention
            self.attention = form(dim, heads, kernel, **options)
        else:
            before, square = config.epeg == "value", config.epeg_2d
            self.attention = ValueEPEGAttention(
                dim, heads, kernel, square=square, before=before, bias=config.epeg_bias, **options
            )

    def forward(
        self,
        x: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None = None,
    ) -> Float[Tensor, "bags instances dim"]:
        regions, exists, join = self.layout.cut(x, mask)
        rows = "bags regions tokens ... -> (bags regions) tokens ..."
        attended = self.attention.attended(
            rearrange(regions, rows), None if exists is None else rearrange(exists, rows)
        )
        split = "(bags regions) tokens dim -> bags regions tokens dim"
        return self.attention.project(join(rearrange(attended, split, bags=x.shape[0])))


class Selection(nn.Linear):
    """A linear map whose fresh weights are uniform by its outputs, not by its inputs."""

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -(self.out_features**-0.5), self.out_features**-0.5)


class CrossRegionAttention(nn.Module):
    """CR-MSA: representatives of each region attend across regions.

    It cuts a bag into 8 x 8 regions whatever the regions of R-MSA, as the authors' code does. Where
    a region is constant (one instance, in bags of at most 64) it adds nothing.
    """

    LAYOUT = Layout(regions=8)

    def __init__(self, config: "R2TConfig") -> None:
        super().__init__()
        dim = config.dim
        self.attention = Attention(
            dim, config.crmsa_heads, qkv_bias=config.qkv_bias, dropout=config.dropout
        )
        self.phi: nn.Module
        if config.crmsa_mlp:
            self.phi = nn.Sequential(
                nn.Linear(dim, dim // 4, bias=False),
                nn.Tanh(),
                nn.Linear(dim // 4, config.crmsa_k, bias=False),
            )
        else:
            self.phi = Selection(dim, config.crmsa_k, bias=False)

    def forward(
        self,
        x: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None = None,
    ) -> Float[Tensor, "bags instances dim"]:
        regions, exists, join = self.LAYOUT.cut(x, mask)
        logits = rearrange(self.phi(regions), "bags regions tokens k -> bags regions k tokens")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        low = high = logits
        if exists is not None:
            absent = ~exists[:, :, None]
            low, high = (
                logits.masked_fill(absent, torch.inf),
                logits.masked_fill(absent, -torch.inf),
            )
        least, most = low.amin(-1, keepdim=True), high.amax(-1, keepdim=True)
        combine = high.softmax(-1)
        dispatch = logits.softmax(-2) * (logits - least) / (most - least + 1e-8)
        rows = rearrange(
            combine.to(regions.dtype) @ regions, "bags regions k dim -> (bags k) regions dim"
        )
        mixed = self.attention(rows)
        mixed = rearrange(mixed, "(bags k) regions dim -> bags regions k dim", bags=x.shape[0])
        return join(dispatch.mT.to(mixed.dtype) @ mixed)
