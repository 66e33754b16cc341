"""Fit, predict, evaluate and keep a Gateformer on tables of series (needs ``[data]``)."""

from typing import Any, cast

import forecasting_kit
import torch

from gateformer.model import Gateformer, GateformerConfig

__all__ = ["Forecaster"]


class Forecaster(forecasting_kit.Forecaster):
    """A Gateformer for a table of series; see :class:`forecasting_kit.Forecaster`.

    The options are the fields of :class:`~gateformer.GateformerConfig`::

        Forecaster(lookback=96, horizon=24, patch=8, stride=8, dim=64, heads=4).fit(frame)

    Nothing in the network depends on the number of variates: it predicts for more, fewer or other
    columns than it was trained on.
    """

    model_class = Gateformer

    def configure(self, *, variates: int, marks: int) -> GateformerConfig:
        """``feed_forward`` is as wide as ``dim`` unless it is said."""
        options: dict[str, Any] = dict(self.options)
        if "dim" in options:
            options.setdefault("feed_forward", options["dim"])
        return GateformerConfig(lookback=self.lookback, horizon=self.horizon, **options)

    def explain(
        self, data: forecasting_kit.forecaster.Data, split: str = "test", *, windows: int = 64
    ) -> dict[str, dict[str, float]]:
        """How the gates stand for each column, averaged over channels and some windows.

        Args:
            data: the whole table; the split's rows are taken from it.
            split: ``"train"``, ``"val"`` or ``"test"``.
            windows: evenly spaced ones to look at.

        Returns:
            Per column ``whole_window`` (the rest comes from its patches) and ``own`` (the rest
            comes from all columns), both in (0, 1).

        Raises:
            ValueError: for data that doesn't fit, or fewer than one window.
        """
        if windows < 1:
            raise ValueError(f"windows={windows}: must be at least 1")
        splits, network = self.splits(data), self._network()
        every = max(1, len(splits[split]) // windows)
        batch = splits[split][torch.arange(0, len(splits[split]), every)]
        gates = cast(Gateformer, network).gates(batch.x)
        whole, own = (share.mean((0, 2)).tolist() for share in gates)
        names = map(str, splits.table.names)
        return {
            name: {"whole_window": w, "own": o}
            for name, w, o in zip(names, whole, own, strict=True)
        }
