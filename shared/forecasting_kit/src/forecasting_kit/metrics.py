"""Errors over all windows, steps and variates at once, from float64 sums that stream."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

METRICS = ("mse", "mae", "rmse", "mape", "mspe", "rse")


class ErrorSums(NamedTuple):
    """Sums over windows that add up: of two batches, of two processes. Kept in float64."""

    absolute: Float[Tensor, "steps variates"]
    squared: Float[Tensor, "steps variates"]
    absolute_ratio: Float[Tensor, ""]
    squared_ratio: Float[Tensor, ""]
    true: Float[Tensor, ""]
    true_squared: Float[Tensor, ""]
    windows: Float[Tensor, ""]


def error_sums(forecast: Tensor, true: Tensor) -> ErrorSums:
    """The sums of one batch, both [windows, steps, variates].

    Raises:
        ValueError: when the two differ in shape.
    """
    if forecast.shape != true.shape or true.ndim != 3:
        raise ValueError(
            f"forecast {list(forecast.shape)} and truth {list(true.shape)}: "
            f"must both be windows x steps x variates"
        )
    if true.device.type == "mps":  # which has no float64
        forecast, true = forecast.cpu(), true.cpu()
    true = true.double()
    error = forecast.double() - true
    ratio = error / true
    return ErrorSums(
        error.abs().sum(0),
        error.square().sum(0),
        ratio.abs().sum(),
        ratio.square().sum(),
        true.sum(),
        true.square().sum(),
        torch.tensor(len(true), dtype=torch.float64, device=true.device),
    )


@dataclass(frozen=True)
class Errors:
    """How far forecasts lie from the truth; means over windows, steps and variates alike.

    ``mape`` and ``mspe`` divide by the truth and say little where it passes through zero, as it
    does in scaled space. ``rse`` is the root of: the squared errors' sum over that of the truth's
    squared deviations from its mean.
    """

    mse: float
    mae: float
    rmse: float
    mape: float
    mspe: float
    rse: float
    windows: int
    mse_per_variate: tuple[float, ...] = field(repr=False)
    mae_per_variate: tuple[float, ...] = field(repr=False)
    mse_per_step: tuple[float, ...] = field(repr=False)
    mae_per_step: tuple[float, ...] = field(repr=False)

    @classmethod
    def of(cls, sums: ErrorSums) -> "Errors":
        """The errors that the sums amount to.

        Raises:
            ValueError: for sums over no window at all.
        """
        windows = int(sums.windows)
        if not windows:
            raise ValueError("no windows to take the errors of")
        squared, absolute = sums.squared / windows, sums.absolute / windows
        count = windows * squared.numel()
        mse = squared.mean().item()
        true, true_squared = sums.true.item(), sums.true_squared.item()
        spread = true_squared - true**2 / count
        return cls(
            mse=mse,
            mae=absolute.mean().item(),
            rmse=math.sqrt(mse) if mse >= 0 else mse,
            mape=sums.absolute_ratio.item() / count,
            mspe=sums.squared_ratio.item() / count,
            rse=math.sqrt(mse * count / spread) if spread > 0 else math.inf,
            windows=windows,
            mse_per_variate=tuple(squared.mean(0).tolist()),
            mae_per_variate=tuple(absolute.mean(0).tolist()),
            mse_per_step=tuple(squared.mean(1).tolist()),
            mae_per_step=tuple(absolute.mean(1).tolist()),
        )

    @property
    def median_mse(self) -> float:
        """The median over variates, which a few wild ones don't move."""
        return torch.tensor(self.mse_per_variate, dtype=torch.float64).quantile(0.5).item()

    @property
    def median_mae(self) -> float:
        return torch.tensor(self.mae_per_variate, dtype=torch.float64).quantile(0.5).item()

    def to_dict(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """As JSON takes it, what is not finite as ``None``; ``columns`` names the variates."""
        names = columns or [str(i) for i in range(len(self.mse_per_variate))]
        per_variate = zip(names, self.mse_per_variate, self.mae_per_variate, strict=True)
        per_step = zip(self.mse_per_step, self.mae_per_step, strict=True)
        return {
            "windows": self.windows,
            **{name: v if math.isfinite(v := getattr(self, name)) else None for name in METRICS},
            "median_mse": self.median_mse,
            "median_mae": self.median_mae,
            "per_variate": {n: {"mse": s, "mae": a} for n, s, a in per_variate},
            "per_step": [{"step": i, "mse": s, "mae": a} for i, (s, a) in enumerate(per_step, 1)],
        }


class ErrorMeter:
    """Gathers the errors of forecasts that come batch by batch."""

    def __init__(self) -> None:
        self.sums: ErrorSums | None = None

    def update(self, forecast: Tensor, true: Tensor) -> None:
        """Add windows; shapes as in :func:`error_sums`."""
        new = error_sums(forecast, true)
        self.sums = new if self.sums is None else ErrorSums(*map(torch.add, self.sums, new))

    def errors(self) -> Errors:
        """The errors of everything added so far."""
        if self.sums is None:
            raise ValueError("no windows to take the errors of")
        return Errors.of(self.sums)


def forecast_errors(forecast: Tensor, true: Tensor) -> Errors:
    """The errors of forecasts that are all at hand, [windows, steps, variates]."""
    return Errors.of(error_sums(forecast, true))
