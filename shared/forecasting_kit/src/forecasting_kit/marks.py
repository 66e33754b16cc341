"""What a timestamp says of itself: position in the minute, hour, day, week, month and year."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

FEATURES: dict[str, Callable[[pd.DatetimeIndex], Any]] = {
    "second": lambda t: t.second / 59,
    "minute": lambda t: t.minute / 59,
    "hour": lambda t: t.hour / 23,
    "weekday": lambda t: t.dayofweek / 6,
    "day": lambda t: (t.day - 1) / 30,
    "year-day": lambda t: (t.dayofyear - 1) / 365,
    "week": lambda t: (t.isocalendar().week.to_numpy(np.float64) - 1) / 52,
    "month": lambda t: (t.month - 1) / 11,
}
"""Each runs over [0, 1] before 0.5 is taken off."""

_DAYS = ("weekday", "day", "year-day")
MARKS: dict[str, tuple[str, ...]] = {
    "s": ("second", "minute", "hour", *_DAYS),
    "min": ("minute", "hour", *_DAYS),
    "h": ("hour", *_DAYS),
    "D": _DAYS,
    "B": _DAYS,
    "W": ("day", "week"),
    "M": ("month",),
    "Q": ("month",),
    "Y": (),
}
"""Sampling unit -> the features its data sets are given, in order."""

_UNITS = {
    **{"S": "s", "T": "min", "MIN": "min", "H": "h", "D": "D", "B": "B", "W": "W", "A": "Y"},
    **dict.fromkeys(("M", "ME", "MS", "BM", "BME", "BMS"), "M"),
    **dict.fromkeys(("Q", "QE", "QS", "BQ", "BQE", "BQS"), "Q"),
    **dict.fromkeys(("Y", "YE", "YS", "AS", "BY", "BYE", "BYS"), "Y"),
}


def mark_names(step: str) -> tuple[str, ...]:
    """The features of data sampled every ``step`` (``"h"``, ``"15min"``, ``"W-SUN"``).

    Raises:
        ValueError: for a step of no known unit.
    """
    match = re.fullmatch(r"\d*([A-Za-z]+)(-[A-Za-z]+)?", step)
    unit = _UNITS.get(match[1].upper()) if match and match[1] != "ms" else None
    if unit is None:
        raise ValueError(f"no time marks for the step {step!r}: must be of {', '.join(MARKS)}")
    return MARKS[unit]


def time_marks(times: pd.DatetimeIndex, step: str = "h") -> Float[np.ndarray, "rows marks"]:
    """Features of ``times`` in [-0.5, 0.5], as data sampled every ``step`` are given.

    The papers' scripts leave ``step`` at hours for every data set, 10- and 15-minute ones included.
    """
    columns = [np.asarray(FEATURES[name](times), np.float64) - 0.5 for name in mark_names(step)]
    return np.stack(columns, 1) if columns else np.empty((len(times), 0))
