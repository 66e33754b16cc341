"""iTransformer: each variate's whole lookback window is one token (Sec. 3, Fig. 2)."""

from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from attention_core import (
    Checkpoint,
    Dropout,
    PaperModel,
    read_checkpoint,
    require,
    require_choice,
    require_fraction,
    require_positive,
    standardise,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from itransformer.attention import ATTENTIONS, Draws


@dataclass(frozen=True, kw_only=True)
class ITransformerConfig:
    """Sizes of the network, and what the data set asks of it."""

    lookback: int = 96
    """Time steps seen."""
    horizon: int = 96
    """Time steps forecast."""
    dim: int = 512
    """Width of a token."""
    feed_forward: int = 512
    """Width inside the feed-forward network."""
    layers: int = 3
    heads: int = 8
    dropout: float = 0.1
    activation: str = "gelu"
    """``gelu`` (exact) or ``relu``."""
    attention: str = "full"
    """Attention between variates: ``full``, ``flow``, ``prob`` or ``lsh`` (Table 2)."""
    use_norm: bool = True
    """Whether each window is standardised, and the forecast brought back (Sec. 4.1)."""
    marks: int = 4
    """Time features per step that the published run feeds as further tokens; 0 for none."""
    factor: int = 1
    """ProbSparse: keys sampled and queries kept are ``factor * ceil(ln tokens)``."""
    bucket_size: int = 4
    """LSH: tokens per bucket."""
    hashes: int = 4
    """LSH: rounds of hashing."""

    def __post_init__(self) -> None:
        require_positive(
            self, "lookback", "horizon", "dim", "feed_forward", "layers", "heads", "factor"
        )
        require_positive(self, "bucket_size", "hashes")
        require(self, "heads", self.heads <= self.dim, f"must be at most dim={self.dim}")
        require(self, "marks", self.marks >= 0, "must be 0 or more")
        require_fraction(self, "dropout")
        require_choice(self, "activation", ("gelu", "relu"))
        require_choice(self, "attention", tuple(ATTENTIONS))
        if self.attention == "lsh":
            require(self, "heads", self.dim % self.heads == 0, "lsh needs a divisor of dim")
        if self.attention != "full":
            rule = f"must be true: {self.attention!r} attention always normalises"
            require(self, "use_norm", self.use_norm, rule)


def _published(horizons: tuple[int, ...], **sizes: object) -> dict[int, ITransformerConfig]:
    return {
        horizon: ITransformerConfig(horizon=horizon, **sizes)  # type: ignore[arg-type]
        for horizon in horizons
    }


_LONG, _SHORT = (96, 192, 336, 720), (12, 24, 48, 96)
_SMALL = {"layers": 2, "dim": 128, "feed_forward": 128}
_PUBLISHED: dict[str, dict[int, ITransformerConfig]] = {
    "ecl": _published(_LONG),
    "traffic": _published(_LONG, layers=4),
    "weather": _published(_LONG),
    "solar": _published(_LONG, layers=2, marks=0),
    "etth1": _published(_LONG[:2], layers=2, dim=256, feed_forward=256)
    | _published(_LONG[2:], layers=2),
    "etth2": _published(_LONG, **_SMALL),
    "ettm1": _published(_LONG, **_SMALL),
    "ettm2": _published(_LONG, **_SMALL),
    "exchange": _published(_LONG, **_SMALL),
    "pems03": _published(_SHORT, layers=4, marks=0),
    "pems04": _published(_SHORT, layers=4, dim=1024, feed_forward=1024, use_norm=False, marks=0),
    "pems07": _published(_SHORT[:2], layers=2, use_norm=False, marks=0)
    | _published(_SHORT[2:], layers=4, use_norm=False, marks=0),
    "pems08": _published(_SHORT[:2], layers=2, marks=0)
    | _published(_SHORT[2:], layers=4, use_norm=False, marks=0),
}

_BACKBONES = {"transformer": "full", "flowformer": "flow", "informer": "prob", "reformer": "lsh"}

VARIANTS = {
    f"itransformer_{data}_{horizon}": config
    for data, horizons in _PUBLISHED.items()
    for horizon, config in horizons.items()
} | {
    f"inverted_{name}": ITransformerConfig(layers=2, feed_forward=2048, attention=attention)
    for name, attention in _BACKBONES.items()
}
"""The published configurations, all of lookback 96: ``itransformer_<data set>_<horizon>``, and the
inverted backbones of Table 2 at the sizes of that comparison."""


class EncoderLayer(nn.Module):
    """Attention across variates, then a feed-forward network on each, both post-norm (Fig. 2)."""

    def __init__(self, config: ITransformerConfig) -> None:
        super().__init__()
        self.attention: Any = ATTENTIONS[config.attention](config)
        self.attention_norm = nn.LayerNorm(config.dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.dim, config.feed_forward),
            nn.GELU() if config.activation == "gelu" else nn.ReLU(),
            Dropout(config.dropout),
            nn.Linear(config.feed_forward, config.dim),
        )
        self.feed_forward_norm = nn.LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], draws: Tensor | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        x = self.attention_norm(x + self.dropout(self.attention(x, draws)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class ITransformer(PaperModel):
    """Forecasts all variates of a window at once; the number of variates is free."""

    variants = VARIANTS

    def __init__(self, config: ITransformerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Linear(config.lookback, config.dim)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.projection = nn.Linear(config.dim, config.horizon)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        heads: int,
        use_norm: bool,
        marks: int,
        activation: str = "gelu",
        attention: str | None = None,
        factor: int = 1,
        bucket_size: int = 4,
        hashes: int = 4,
        dropout: float = 0.1,
    ) -> Self:
        """The model of a ``checkpoint.pth`` that the authors' or TSLib's code wrote.

        Widths, depth, lookback and horizon are read off the tensors. The file can't tell the rest:

        Args:
            checkpoint: the file, or its state dict.
            heads: ``n_heads`` of the run; 8 in every published script.
            use_norm: whether the run normalised windows; false for PEMS04, 07 and half of 08. The
                other attentions than ``full`` always do, whatever the run's flag said.
            marks: time features per step the run was fed; 4 in the published scripts, 0 for
                Solar and PEMS.
            activation: ``gelu`` or ``relu``.
            attention: ``full``, ``flow`` or ``prob``: they share one layout, so it must be said
                for all but ``full`` (the default) and ``lsh`` (which the file shows).
            factor: of ``prob`` attention.
            bucket_size: of ``lsh`` attention.
            hashes: rounds of ``lsh`` attention.
            dropout: rate for further training.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped entry.
        """
        from itransformer.official import convert

        state = read_checkpoint(checkpoint)
        config, weights = convert(
            state,
            heads=heads,
            use_norm=use_norm,
            marks=marks,
            activation=activation,
            attention=attention,
            factor=factor,
            bucket_size=bucket_size,
            hashes=hashes,
            dropout=dropout,
        )
        return cls.from_state(config, weights)

    def forward(
        self,
        x: Float[Tensor, "batch lookback variates"],
        marks: Float[Tensor, "batch steps features"] | None = None,
        draws: Draws = None,
    ) -> Float[Tensor, "batch horizon variates"]:
        """Forecast the ``horizon`` steps that follow ``x``.

        Args:
            x: the window, in the scale of the training data (standardised per variate).
            marks: time features of the same steps, each in [-0.5, 0.5]; a model trained with them
                needs them. Each becomes one more token.
            draws: per layer, the random part of ``prob`` (key indices [tokens, samples]) or ``lsh``
                (rotations [1, head_dim, hashes, buckets/2]) attention; drawn afresh by default.

        Raises:
            ValueError: for a window of another length, or marks of another width or length.
        """
        self._check(x, marks)
        window, mean, deviation = self.normalise(x)
        tokens = self.interact(self.embed(window, marks), draws)
        forecast = self.project(tokens[:, : x.shape[-1]])
        return (forecast * deviation + mean).to(x.dtype) if self.config.use_norm else forecast

    def normalise(
        self, x: Float[Tensor, "batch lookback variates"]
    ) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """The window of each variate standardised, with its mean and deviation (Sec. 4.1)."""
        if not self.config.use_norm:
            return x, 0.0, 1.0
        return standardise(x)

    def embed(
        self,
        window: Float[Tensor, "batch lookback variates"],
        marks: Float[Tensor, "batch steps features"] | None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """One token per variate, then one per time feature (Eq. 1)."""
        series = window if marks is None else torch.cat([window, marks.to(window.dtype)], -1)
        tokens = self.embedding(rearrange(series, "batch lookback tokens -> batch tokens lookback"))
        return self.dropout(tokens)

    def interact(
        self, tokens: Float[Tensor, "batch tokens dim"], draws: Draws = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The encoder: tokens see each other."""
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, None if draws is None else draws[index])
        return tokens

    def project(
        self, tokens: Float[Tensor, "batch variates dim"]
    ) -> Float[Tensor, "batch horizon variates"]:
        """Each variate's token becomes its forecast, in the scale of the window."""
        forecast = self.projection(self.norm(tokens))
        return rearrange(forecast, "batch variates horizon -> batch horizon variates")

    @torch.no_grad()
    def attention_maps(
        self,
        x: Float[Tensor, "batch lookback variates"],
        marks: Float[Tensor, "batch steps features"] | None = None,
    ) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """The attention between variates (and marks, which come last) in each layer (Fig. 7).

        Raises:
            ValueError: when the model's attention has no such map (all but ``full``).
        """
        if self.config.attention != "full":
            raise ValueError(f"attention={self.config.attention!r} has no map; only 'full' has one")
        self._check(x, marks)
        tokens, maps = self.embed(self.normalise(x)[0], marks), []
        for layer in self.layers:
            maps.append(cast(EncoderLayer, layer).attention.weights(tokens))
            tokens = layer(tokens)
        return maps

    def _check(self, x: Tensor, marks: Tensor | None) -> None:
        expected, features = self.config.lookback, self.config.marks
        if x.ndim != 3 or x.shape[1] != expected:
            raise ValueError(
                f"x has shape {list(x.shape)}: must be [batch, lookback={expected}, variates]"
            )
        if marks is None and features:
            raise ValueError(f"marks missing: this model takes {features} time features per step")
        if marks is not None and marks.shape != (*x.shape[:2], features):
            raise ValueError(
                f"marks have shape {list(marks.shape)}: must be "
                f"{[*x.shape[:2], features]} ([batch, lookback, features])"
            )


class ChannelIndependent(nn.Module):
    """A forecaster that sees one variate at a time: the rival of Sec. 4.3.

    Args:
        model: any forecaster; it is called with every variate as a window of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        x: Float[Tensor, "batch lookback variates"],
        marks: Float[Tensor, "batch steps features"] | None = None,
    ) -> Float[Tensor, "batch horizon variates"]:
        variates = x.shape[-1]
        windows = rearrange(x, "batch lookback variates -> (batch variates) lookback 1")
        if marks is not None:
            marks = marks.repeat_interleave(variates, 0)
        split = "(batch variates) horizon 1 -> batch horizon variates"
        return rearrange(self.model(windows, marks), split, variates=variates)
