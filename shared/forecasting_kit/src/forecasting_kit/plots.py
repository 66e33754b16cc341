"""Pictures of forecasts, errors and attention; matplotlib is imported where it is used."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from attention_core import atomic_path
from torch import Tensor

from forecasting_kit.metrics import Errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 40
"""Variates whose names still fit along an axis."""


def plot_forecast(
    history: pd.DataFrame,
    forecast: pd.DataFrame,
    *,
    truth: pd.DataFrame | None = None,
    columns: Sequence[Any] | None = None,
) -> "Figure":
    """History and forecast of some variates, one below the other, in the data's units.

    Args:
        history: wide; what was known.
        forecast: wide; what ``predict`` returned.
        truth: wide; what then happened.
        columns: which variates; the first four by default.

    Raises:
        ValueError: for a column that was not forecast.
    """
    columns = list(forecast.columns[:4] if columns is None else columns)
    if missing := [str(c) for c in columns if c not in forecast.columns]:
        raise ValueError(f"no forecast of column {', '.join(missing)}")
    figure = _figure(9, 1 + 1.7 * len(columns))
    for i, (column, axes) in enumerate(zip(columns, _rows(figure, len(columns)), strict=True)):
        axes.plot(history.index, history[column], color="0.5", label="history")
        if truth is not None:
            axes.plot(truth.index, truth[column], color="black", label="truth")
        axes.plot(forecast.index, forecast[column], color="tab:red", label="forecast")
        axes.set_ylabel(str(column))
        if not i:
            axes.legend(loc="upper left", ncols=3, frameon=False)
    figure.autofmt_xdate()
    return figure


def plot_errors(errors: Errors, columns: Sequence[str] | None = None) -> "Figure":
    """Mean squared error by step ahead, and by variate from best to worst."""
    figure = _figure(9, 6)
    by_step, by_variate = _rows(figure, 2)
    steps = np.arange(1, len(errors.mse_per_step) + 1)
    by_step.plot(steps, errors.mse_per_step, color="tab:blue")
    by_step.set(xlabel="steps ahead", ylabel="MSE", ylim=(0, None))
    order = np.argsort(errors.mse_per_variate)
    by_variate.bar(np.arange(len(order)), np.array(errors.mse_per_variate)[order])
    by_variate.axhline(errors.mse, color="black", label=f"mean {errors.mse:.3f}")
    by_variate.axhline(
        errors.median_mse, color="black", linestyle=":", label=f"median {errors.median_mse:.3f}"
    )
    by_variate.set(xlabel="variates, best to worst", ylabel="MSE")
    by_variate.legend()
    if columns is not None and len(columns) <= NAMED:
        names = [columns[i] for i in order]
        by_variate.set_xticks(np.arange(len(names)), names, rotation=90, fontsize=7)
    return figure


def plot_attention(weights: Tensor, columns: Sequence[str] | None = None) -> "Figure":
    """Which variate (row) looks at which (column): a heat map of [variates, variates] weights.

    Raises:
        ValueError: for weights that are not square, or names that are too many or too few.
    """
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"weights {list(weights.shape)}: must be variates x variates")
    if columns is not None and len(columns) != len(weights):
        raise ValueError(f"{len(columns)} names for {len(weights)} variates")
    figure = _figure(7, 6)
    axes = figure.add_subplot()
    image = axes.imshow(torch.as_tensor(weights).detach().float().cpu().numpy(), cmap="viridis")
    axes.set(xlabel="looked at", ylabel="variate")
    figure.colorbar(image, label="attention")
    if columns is not None and len(columns) <= NAMED:
        axes.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(np.arange(len(columns)), columns, fontsize=7)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure; its suffix says the format."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=120)
    return Path(path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    return Figure(figsize=(width, height), layout="constrained")


def _rows(figure: "Figure", count: int) -> list[Any]:
    return list(np.atleast_1d(figure.subplots(count, 1)))
