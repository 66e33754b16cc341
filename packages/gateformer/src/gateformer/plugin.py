"""Gateformer's gates put into another forecaster."""

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from gateformer.model import Gate, GateformerConfig, TemporalPath, check_window

if TYPE_CHECKING:
    from forecasting_kit.studies import VariateForecaster


class Gated(nn.Module):
    """Another forecaster, given each series' patches and two gates.

    The first gate mixes the other's embedding of a series with that of its patches, the second what
    the series was with what the other's encoder made of it among all series. No code of the
    authors' shows how they did it; this follows the description.

    Args:
        base: the other forecaster; it has ``config.lookback``, ``config.dim`` and the methods
            ``normalise``, ``embed``, ``interact`` and ``project`` of
            ``forecasting_kit.studies.VariateForecaster``.
        patch: time steps of a patch.
        stride: time steps from one patch to the next.
        layers: of the patches' encoder.
        heads: of it.
        feed_forward: its inner width; by default the width of a token.
        dropout: rate.

    Raises:
        ValueError: for sizes that don't fit the other's lookback and width.
    """

    def __init__(
        self,
        base: "VariateForecaster",
        *,
        patch: int = 8,
        stride: int = 8,
        layers: int = 1,
        heads: int = 4,
        feed_forward: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        dim = base.config.dim
        self.base = base
        self.config = GateformerConfig(
            lookback=base.config.lookback,
            horizon=base.config.horizon,
            patch=patch,
            stride=stride,
            dim=dim,
            feed_forward=feed_forward or dim,
            layers=layers,
            heads=heads,
            dropout=dropout,
        )
        self.temporal = TemporalPath(self.config)
        self.embedding_gate = Gate(dim)
        self.interaction_gate = Gate(dim)

    def forward(
        self,
        x: Float[Tensor, "batch lookback variates"],
        marks: Float[Tensor, "batch steps features"] | None = None,
    ) -> Float[Tensor, "batch horizon variates"]:
        """Forecast the ``horizon`` steps that follow ``x``; ``marks`` are the other's own."""
        check_window(x, self.config.lookback)
        window, mean, deviation = self.base.normalise(x)
        tokens, variates = self.base.embed(window, marks), x.shape[2]
        series = rearrange(window, "batch lookback variates -> batch variates lookback")
        own = self.embedding_gate(tokens[:, :variates], self.temporal(series))
        among = self.base.interact(torch.cat([own, tokens[:, variates:]], 1))[:, :variates]
        return self.base.project(self.interaction_gate(own, among)) * deviation + mean
