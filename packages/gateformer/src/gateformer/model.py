"""Gateformer: what a series did and what its neighbours did, mixed by two gates."""

import copy
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from attention_core import (
    Checkpoint,
    Dropout,
    PaperModel,
    TokenLinear,
    attend,
    cached_per_size,
    read_checkpoint,
    require,
    require_fraction,
    require_positive,
    split_heads,
    standardise,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

TOKENS_AT_ONCE = 1 << 14
"""Patches that the temporal path takes at a time where no gradient is asked for."""


@dataclass(frozen=True, kw_only=True)
class GateformerConfig:
    """Sizes of the network."""

    lookback: int = 96
    """Time steps seen."""
    horizon: int = 96
    """Time steps forecast."""
    patch: int = 8
    """Time steps of a patch."""
    stride: int = 8
    """Time steps from one patch to the next."""
    dim: int = 512
    """Width of a token; even, for the sinusoids of the patches' positions."""
    feed_forward: int = 512
    """Width inside the feed-forward networks."""
    layers: int = 2
    """Of each of the two encoders."""
    heads: int = 8
    dropout: float = 0.1
    identical_layers: bool = False
    """Whether an encoder's layers start from the same weights, as in the authors' code."""

    def __post_init__(self) -> None:
        require_positive(self, "lookback", "horizon", "patch", "stride", "dim", "feed_forward")
        require_positive(self, "layers", "heads")
        longest = self.lookback + self.stride
        require(
            self, "patch", self.patch <= longest, f"must be at most lookback + stride={longest}"
        )
        require(self, "dim", self.dim % 2 == 0, "must be even")
        require(self, "heads", self.dim % self.heads == 0, f"must divide dim={self.dim}")
        require_fraction(self, "dropout")

    @property
    def patches(self) -> int:
        """Of a window that is prolonged by ``stride`` copies of its last value."""
        return (self.lookback + self.stride - self.patch) // self.stride + 1


def _published(data: str, sizes: dict[tuple[int, ...], tuple[int, int, int]]) -> dict[str, Any]:
    """``sizes``: for some horizons, the layers, the width and the feed-forward width."""
    return {
        f"gateformer_{data}_{horizon}": GateformerConfig(
            horizon=horizon,
            layers=layers,
            dim=dim,
            feed_forward=feed_forward,
            heads=4 if dim <= 128 else 8,
        )
        for horizons, (layers, dim, feed_forward) in sizes.items()
        for horizon in horizons
    }


VARIANTS: dict[str, GateformerConfig] = {
    **_published("etth1", {(96,): (1, 64, 64), (192, 720): (2, 64, 64), (336,): (2, 128, 128)}),
    **_published("ettm1", {(96, 720): (1, 64, 64), (192, 336): (1, 128, 128)}),
    **_published("exchange", {(96, 192, 336): (1, 64, 64), (720,): (2, 128, 128)}),
    **_published("ecl", {(96,): (2, 512, 512), (192,): (4, 512, 1024), (336, 720): (2, 512, 1024)}),
    **_published(
        "traffic", {(96, 192): (2, 512, 1024), (336,): (3, 512, 1024), (720,): (3, 512, 512)}
    ),
    **_published(
        "weather", {(96, 192): (2, 512, 1024), (336,): (2, 256, 256), (720,): (2, 256, 512)}
    ),
    **_published("solar", {(96,): (3, 512, 512), (192, 336, 720): (2, 512, 512)}),
    **_published("pems03", {(3, 6, 12, 24): (2, 512, 512)}),
    **_published("pems07", {(3, 6, 12, 24): (2, 512, 512)}),
}
"""The published configurations, all of lookback 96: ``gateformer_<data set>_<horizon>``."""


class Gates(NamedTuple):
    """Where a forecast comes from; each entry is in (0, 1)."""

    whole_window: Float[Tensor, "batch variates dim"]
    """Share of the whole window's embedding; the rest comes from the patches."""
    own: Float[Tensor, "batch variates dim"]
    """Share of the series itself; the rest comes from all series."""


class Gateformer(PaperModel):
    """Forecasts all variates of a window at once; the number of variates is free.

    Time features are accepted and not used, as in the authors' code.
    """

    variants = VARIANTS

    def __init__(self, config: GateformerConfig) -> None:
        super().__init__(config)
        self.window_embedding = nn.Linear(config.lookback, config.dim)
        self.dropout = Dropout(config.dropout)
        self.temporal = TemporalPath(config)
        self.embedding_gate = Gate(config.dim)
        self.variate_encoder = encoder(config)
        self.interaction_gate = Gate(config.dim)
        self.projection = nn.Linear(config.dim, config.horizon)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        heads: int,
        stride: int | None = None,
        dropout: float = 0.1,
    ) -> Self:
        """The model of a ``checkpoint.pth`` that the authors' code wrote.

        Widths, depths, lookback, horizon and patch are read off the tensors.

        Args:
            checkpoint: the file, or its state dict.
            heads: of attention; 4 in the published runs up to width 128, else 8.
            stride: steps between patches; needed where the number of patches allows several.
            dropout: rate for further training.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped entry, or the strides
                that fit.
        """
        from gateformer.official import convert

        state = read_checkpoint(checkpoint)
        return cls.from_state(*convert(state, heads=heads, stride=stride, dropout=dropout))

    def forward(
        self,
        x: Float[Tensor, "batch lookback variates"],
        marks: Float[Tensor, "batch steps features"] | None = None,
    ) -> Float[Tensor, "batch horizon variates"]:
        """Forecast the ``horizon`` steps that follow ``x``.

        Args:
            x: the window, in the scale of the training data (standardised per variate).
            marks: time features, not used.

        Raises:
            ValueError: for a window of another length.
        """
        check_window(x, self.config.lookback)
        window, mean, deviation = standardise(x)
        series = rearrange(window, "batch lookback variates -> batch variates lookback")
        own = self.embedding_gate(*self.embed(series))
        mixed = self.interaction_gate(own, self.variate_encoder(own))
        forecast = self.projection(mixed)
        forecast = rearrange(forecast, "batch variates horizon -> batch horizon variates")
        return (forecast * deviation + mean).to(x.dtype)

    def embed(
        self, series: Float[Tensor, "batch variates lookback"]
    ) -> tuple[Float[Tensor, "batch variates dim"], Float[Tensor, "batch variates dim"]]:
        """Each series' embedding as a whole, and by its patches."""
        return self.dropout(self.window_embedding(series)), self.temporal(series)

    @torch.no_grad()
    def gates(self, x: Float[Tensor, "batch lookback variates"]) -> Gates:
        """How the two gates stand for each window, series and channel.

        Raises:
            ValueError: for a window of another length.
        """
        check_window(x, self.config.lookback)
        series = rearrange(standardise(x)[0], "batch lookback variates -> batch variates lookback")
        whole, patches = self.embed(series)
        own = self.embedding_gate(whole, patches)
        return Gates(
            self.embedding_gate.share(whole, patches),
            self.interaction_gate.share(own, self.variate_encoder(own)),
        )


class Gate(nn.Module):
    """A share of the first and the rest of the second, channel by channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.second = TokenLinear(dim, dim), TokenLinear(dim, dim)

    def share(
        self, first: Float[Tensor, "*batch dim"], second: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch dim"]:
        """Of the first, in (0, 1)."""
        return torch.sigmoid(self.first(first) + self.second(second))

    def forward(
        self, first: Float[Tensor, "*batch dim"], second: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch dim"]:
        return torch.lerp(second, first, self.share(first, second))


class TemporalPath(nn.Module):
    """Each series by itself: its patches see each other and become one vector."""

    def __init__(self, config: GateformerConfig) -> None:
        super().__init__()
        self.patch, self.stride, self.dim = config.patch, config.stride, config.dim
        self.embedding = nn.Linear(config.patch, config.dim, bias=False)
        self.dropout = Dropout(config.dropout)
        self.encoder = encoder(config)
        self.head = TokenLinear(config.patches * config.dim, config.dim)

    def forward(
        self, series: Float[Tensor, "batch variates lookback"]
    ) -> Float[Tensor, "batch variates dim"]:
        """Where no gradient is asked for, a few series at a time: memory does not grow."""
        flat = series.flatten(0, 1)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.represent(flat).unflatten(0, series.shape[:2])
        some = max(1, TOKENS_AT_ONCE * self.dim // self.head.in_features)
        parts = [self.represent(part) for part in flat.split(some)]
        return torch.cat(parts).unflatten(0, series.shape[:2])

    def represent(self, series: Float[Tensor, "n lookback"]) -> Float[Tensor, "n dim"]:
        prolonged = torch.cat([series, series[:, -1:].expand(-1, self.stride)], 1)
        patches = self.embedding(prolonged.unfold(1, self.patch, self.stride))
        place = sinusoids(patches.shape[1], self.dim, series.device)
        tokens = self.dropout(patches + place.to(patches.dtype))
        return self.dropout(self.head(self.encoder(tokens).flatten(1)))


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network, each behind a norm and around a skip."""

    def __init__(self, config: GateformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.rate = config.heads, config.dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = TokenLinear(dim, 3 * dim)
        self.out = TokenLinear(dim, dim)
        self.dropout = Dropout(config.dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            TokenLinear(dim, config.feed_forward),
            nn.ReLU(),
            Dropout(config.dropout),
            TokenLinear(config.feed_forward, dim),
        )
        # As torch.nn.MultiheadAttention starts.
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def attention(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        rate = self.rate if self.training else 0.0
        attended = attend(*split_heads(self.qkv(x), self.heads), dropout=rate)
        return self.out(rearrange(attended, "batch heads tokens d -> batch tokens (heads d)"))


def encoder(config: GateformerConfig) -> nn.Sequential:
    """Pre-norm layers without a norm at the end."""
    layers = [EncoderLayer(config) for _ in range(config.layers)]
    if config.identical_layers:
        layers = [copy.deepcopy(layers[0]) for _ in layers]
    return nn.Sequential(*layers)


@cached_per_size
def sinusoids(length: int, dim: int, device: torch.device) -> Float[Tensor, "length dim"]:
    """Sine and cosine of position / 10000^(2i / dim) in the channels 2i and 2i + 1."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000) / dim))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def check_window(x: Tensor, lookback: int) -> None:
    if x.ndim != 3 or x.shape[1] != lookback:
        raise ValueError(
            f"x has shape {list(x.shape)}: must be [batch, lookback={lookback}, variates]"
        )
