"""Standardisation per variate."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from attention_core import write_text
from jaxtyping import Float


@dataclass(frozen=True)
class Scaler:
    """(value - mean) / scale for each variate; the scale is the population standard deviation.

    A constant variate has scale 1.
    """

    mean: Float[np.ndarray, " variates"]
    scale: Float[np.ndarray, " variates"]

    @classmethod
    def fit(cls, values: Float[np.ndarray, "rows variates"]) -> Self:
        """Mean and population standard deviation of each column; NaN are passed over.

        Raises:
            ValueError: for no rows, or a column without a value.
        """
        known = ~np.isnan(values)
        if not len(values) or not known.any(0).all():
            empty = np.flatnonzero(~known.any(0))
            raise ValueError(f"nothing to fit a scaler to: {len(values)} rows, no value in {empty}")
        count, mean, variance = known.sum(0), np.nanmean(values, 0), np.nanvar(values, 0)
        # Within rounding error of the mean a column counts as constant.
        eps = np.finfo(np.float64).eps
        constant = variance <= count * eps * variance + (count * mean * eps) ** 2
        return cls(mean, np.where(constant, 1.0, np.sqrt(variance)))

    @property
    def variates(self) -> int:
        return len(self.mean)

    def transform(self, values: Float[np.ndarray, "*rows v"]) -> Float[np.ndarray, "*rows v"]:
        """From the data's own units into scaled space."""
        return (values - self.mean) / self.scale

    def inverse(self, values: Float[np.ndarray, "*rows v"]) -> Float[np.ndarray, "*rows v"]:
        """From scaled space back into the data's own units."""
        return values * self.scale + self.mean

    def select(self, variates: Sequence[int] | slice) -> "Scaler":
        """The scaler of some of the variates, by place."""
        chosen = variates if isinstance(variates, slice) else list(variates)
        return Scaler(self.mean[chosen], self.scale[chosen])

    def to_dict(self) -> dict[str, list[float]]:
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(np.asarray(data["mean"], np.float64), np.asarray(data["scale"], np.float64))

    def save(self, path: str | Path) -> None:
        """Write the numbers as JSON; every digit is kept."""
        write_text(path, json.dumps(self.to_dict()))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What :meth:`save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text()))
