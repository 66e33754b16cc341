"""The field's protocol: which rows train, which are scored, in which space, with which marks."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from attention_core import GoldenCase
from jaxtyping import Float
from torch import Tensor

from forecasting_kit.marks import time_marks
from forecasting_kit.metrics import METRICS, forecast_errors
from forecasting_kit.scaling import Scaler
from forecasting_kit.tables import Table
from forecasting_kit.windows import Windows, require_sizes

Split = str | Sequence[float]
"""A kind of data set (``KINDS``), or the shares of train, val and test such as (0.8, 0.2, 0)."""

SPLITS = ("train", "val", "test")
KINDS = ("custom", "ett-hour", "ett-minute", "solar", "pems")
_ETT_MONTHS = (12, 16, 20)  # of 30 days: where train, val and test end


def split_rows(split: Split, rows: int, lookback: int) -> dict[str, range]:
    """The rows of train, val and test; a later split starts ``lookback`` before its first target.

    Only ``pems`` keeps the three apart, so that its val and test forecasts start later.

    Raises:
        ValueError: for an unknown kind, shares that are not three parts of 1, or a file too short
            for the ETT months.
    """
    if not isinstance(split, str):
        shares = tuple(split)
        if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or sum(shares) > 1 + 1e-9:
            raise ValueError(f"split={split!r}: must be shares of train, val and test, at most 1")
        train, test = int(shares[0] * rows + 1e-9), int(shares[2] * rows + 1e-9)
        val = rows - train - test if sum(shares) > 1 - 1e-9 else int(shares[1] * rows + 1e-9)
        return _overlapping(train, train + val if shares[1] else train, rows, lookback, test)
    match split:
        case "custom":
            train, test = int(rows * 0.7), int(rows * 0.2)
            return _overlapping(train, rows - test, rows, lookback, test)
        case "solar":  # up to one row between val and test belongs to neither
            train, val, test = int(rows * 0.7), int(rows * 0.1), int(rows * 0.2)
            return _overlapping(train, train + val, rows, lookback, test)
        case "ett-hour" | "ett-minute":
            per_month = 30 * 24 * (4 if split == "ett-minute" else 1)
            train, val, end = (months * per_month for months in _ETT_MONTHS)
            if rows < end:
                raise ValueError(f"split {split!r} needs {end} rows (20 months), got {rows}")
            return _overlapping(train, val, end, lookback, end - val)
        case "pems":
            train, val = int(0.6 * rows), int((0.6 + 0.2) * rows)
            return {"train": range(train), "val": range(train, val), "test": range(val, rows)}
    raise ValueError(f"split={split!r}: must be one of {', '.join(KINDS)}, or three shares")


def _overlapping(train: int, val: int, end: int, lookback: int, test: int) -> dict[str, range]:
    return {
        "train": range(train),
        "val": range(max(train - lookback, 0), val) if val > train else range(0),
        "test": range(max(end - test - lookback, 0), end) if test else range(0),
    }


def select_features(table: Table, features: str, target: Hashable | None) -> Table:
    """The variates that a setting uses: ``M`` all, ``S`` the target alone, ``MS`` the target last.

    The target is the last column unless named.

    Raises:
        ValueError: for an unknown setting or target.
    """
    if features not in ("M", "S", "MS"):
        raise ValueError(f"features={features!r}: must be 'M', 'S' or 'MS'")
    if features == "M":
        return table
    target = table.names[-1] if target is None else str(target)
    others = [name for name in table.names if name != target] if features == "MS" else []
    return table.select([*others, target])


@dataclass(frozen=True)
class Splits:
    """A data set ready for the protocol: scaled by its training rows and cut into windows.

    ``val`` and ``test`` are ``None`` where the split leaves them no rows.
    """

    table: Table
    scaler: Scaler
    rows: Mapping[str, range]
    train: Windows
    val: Windows | None
    test: Windows | None

    def __getitem__(self, name: str) -> Windows:
        if name not in SPLITS:
            raise ValueError(f"split {name!r}: must be one of {', '.join(SPLITS)}")
        windows = getattr(self, name)
        if windows is None:
            raise ValueError(f"the split leaves no rows for {name}")
        return windows


def prepare(
    table: Table,
    lookback: int,
    horizon: int,
    *,
    split: Split = "custom",
    features: str = "M",
    target: Hashable | None = None,
    marks: str | None = "h",
    scaler: Scaler | None = None,
    fill: str | None = None,
    device: str | torch.device = "cpu",
) -> Splits:
    """Scale a table by its training rows and cut its splits into windows.

    Args:
        table: the data in its own units; a ``pems`` table may have gaps, which are filled in scaled
            space within each split.
        lookback: L.
        horizon: H.
        split: see :func:`split_rows`.
        features: see :func:`select_features`.
        target: the column that ``S`` and ``MS`` forecast.
        marks: the step whose time features to give (``"h"`` in all published runs, whatever the
            data's own), ``"auto"`` for the table's own step, or ``None``; a table without times has
            none.
        scaler: of a trained model, instead of one fitted to the training rows.
        fill: how to close gaps, see :meth:`Table.complete`.
        device: where the windows are kept.

    Raises:
        ValueError: for sizes, splits or data that don't fit; the message says which.
    """
    require_sizes(lookback, horizon)
    table = select_features(table, features, target)
    if split != "pems" or fill is not None:
        table = table.complete(fill)
    if len(table) < lookback + horizon:
        raise ValueError(
            f"{len(table)} rows of data are fewer than lookback + horizon = {lookback + horizon}"
        )
    rows = split_rows(split, len(table), lookback)
    scaler = scaler or Scaler.fit(table.values[slice_of(rows["train"])])
    if scaler.variates != table.values.shape[1]:
        raise ValueError(
            f"the scaler knows {scaler.variates} variates, the data has {table.values.shape[1]}"
        )
    scaled = scaler.transform(table.values)
    values = torch.from_numpy(scaled.astype(np.float32)).to(device)
    features_of_time = table_marks(table, marks)
    if features_of_time is not None:
        features_of_time = features_of_time.to(device)

    def windows(name: str) -> Windows | None:
        span = slice_of(rows[name])
        if not len(rows[name]):
            return None
        if len(rows[name]) < lookback + horizon:
            raise ValueError(
                f"{len(table)} rows: the {name} split has {len(rows[name])} of them, fewer than "
                f"lookback + horizon = {lookback + horizon}; give more rows or another split"
            )
        part = values[span]
        if np.isnan(scaled[span]).any():
            part = torch.from_numpy(_filled(scaled[span]).astype(np.float32)).to(device)
        part_marks = None if features_of_time is None else features_of_time[span]
        return Windows(part, lookback, horizon, marks=part_marks, last_only=features == "MS")

    train = windows("train")
    if train is None:
        raise ValueError(f"split={split!r} leaves no rows for train")
    return Splits(table, scaler, rows, train, windows("val"), windows("test"))


def table_marks(
    table: Table, step: str | None, *, future: int = 0
) -> Float[Tensor, "rows marks"] | None:
    """Time features of a table's rows and of ``future`` more; ``None`` where there are none.

    ``step`` is as in :func:`prepare`.
    """
    if step is None or table.times is None:
        return None
    times = table.times
    if future:
        times = pd.DatetimeIndex(times.append(table.future(future)))
    marks = time_marks(times, table.step() if step == "auto" else step)
    return torch.from_numpy(marks.astype(np.float32)) if marks.shape[1] else None


def slice_of(rows: range) -> slice:
    return slice(rows.start, rows.stop)


def _filled(values: Float[np.ndarray, "rows variates"]) -> Float[np.ndarray, "rows variates"]:
    return pd.DataFrame(values).ffill().bfill().to_numpy()


def protocol_case(case: GoldenCase) -> dict[str, Tensor]:
    """The outputs of a recorded protocol case: of the metrics, or of a data set's splits."""
    inputs = case.inputs()
    if case.name.startswith("protocol_metrics"):
        errors = forecast_errors(inputs["pred"], inputs["true"])
        return {name: torch.tensor([getattr(errors, name), 0.0]) for name in METRICS}
    config = case.config
    table = _recorded_table(config, inputs["table"].double().numpy())
    kind = _kind(config)
    splits = prepare(
        table,
        config["lookback"],
        config["horizon"],
        split=kind,
        features=config.get("features", "M"),
        target=config.get("target"),
        marks=None if kind in ("solar", "pems") else config.get("marks", config.get("freq", "h")),
    )
    outputs = {
        "lengths": torch.tensor([len(splits[name]) for name in SPLITS]),
        "scaler:mean": torch.from_numpy(splits.scaler.mean),
        "scaler:scale": torch.from_numpy(splits.scaler.scale),
    }
    for name in SPLITS:
        first, last = splits[name][[0]], splits[name][[len(splits[name]) - 1]]
        outputs |= {
            f"{name}:first_x": first.x[0],
            f"{name}:first_y": first.y[0],
            f"{name}:last_x": last.x[0],
            f"{name}:last_y": last.y[0],
        }
        if first.past_marks is not None:
            outputs[f"{name}:first_x_mark"] = first.past_marks[0]
    return outputs


def _recorded_table(config: Mapping[str, Any], draw: Float[np.ndarray, "..."]) -> Table:
    values = draw[..., 0] if draw.ndim == 3 else draw
    place = np.arange(values.shape[1])
    times = None
    if "start" in config:
        times = pd.date_range(config["start"], periods=len(values), freq=config.get("freq", "h"))
    return Table(values * (place + 1) + 10 * place, tuple(map(str, place)), times)


def _kind(config: Mapping[str, Any]) -> str:
    kind = config["kind"].lower().replace("_", "-")
    return {"etth": "ett-hour", "ettm": "ett-minute"}.get(kind, kind)
