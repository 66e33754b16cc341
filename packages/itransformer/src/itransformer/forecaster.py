"""Fit, predict, evaluate and keep an iTransformer on tables of series (needs ``[data]``)."""

from typing import Any

import forecasting_kit

from itransformer.model import ITransformer, ITransformerConfig

__all__ = ["Forecaster"]


class Forecaster(forecasting_kit.Forecaster):
    """An iTransformer for a table of series; see :class:`forecasting_kit.Forecaster`.

    The options are the fields of :class:`~itransformer.ITransformerConfig`::

        Forecaster(lookback=96, horizon=24, attention="flow", dim=128).fit(frame).predict(frame)

    Nothing in the network depends on the number of variates: it predicts for more, fewer or other
    columns than it was trained on.
    """

    model_class = ITransformer

    def configure(self, *, variates: int, marks: int) -> ITransformerConfig:
        """``feed_forward`` is as wide as ``dim`` unless it is said, as in all published runs."""
        options: dict[str, Any] = dict(self.options)
        if "dim" in options:
            options.setdefault("feed_forward", options["dim"])
        return ITransformerConfig(
            lookback=self.lookback, horizon=self.horizon, marks=marks, **options
        )
