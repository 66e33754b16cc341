"""Series as the user has them: a table, one column per variate, one row per time step."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pandas.tseries.frequencies import to_offset

Layout = Literal["wide", "long"]
FILLS = ("ffill", "interpolate")
LONG_COLUMNS = ("unique_id", "ds", "y")
TIME_NAMES = ("date", "ds", "time", "timestamp", "datetime")


@dataclass(frozen=True)
class Table:
    """Values in their own units with the time of each row.

    Attributes:
        values: one row per time step, one column per variate; NaN where nothing was measured.
        columns: the variates' names.
        times: the time of each row, or ``None`` for files that have none.
        layout: the kind of frame it was read from, which forecasts are handed back in.
        known_step: the sampling step where it is known, so that the times need not be even.
    """

    values: Float[np.ndarray, "rows variates"]
    columns: tuple[Hashable, ...]
    times: pd.DatetimeIndex | None = None
    layout: Layout = "wide"
    known_step: str | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns as text."""
        return tuple(map(str, self.columns))

    def select(self, columns: Iterable[Hashable]) -> "Table":
        """The table of ``columns``, in their order; each is a column or its name.

        Raises:
            ValueError: for a column that the table does not have.
        """
        columns = list(columns)
        place = {name: i for i, name in enumerate(self.names)}
        if missing := [str(c) for c in columns if str(c) not in place]:
            raise ValueError(
                f"no column {', '.join(missing)}; the data has {_listing(self.names, 20)}"
            )
        chosen = [place[str(c)] for c in columns]
        kept = tuple(self.columns[i] for i in chosen)
        return replace(self, values=self.values[:, chosen], columns=kept)

    def tail(self, rows: int) -> "Table":
        """The last ``rows`` rows."""
        times = None if self.times is None else self.times[-rows:]
        return replace(self, values=self.values[-rows:], times=times)

    def complete(self, fill: str | None = None) -> "Table":
        """The table without gaps.

        Args:
            fill: ``"ffill"`` repeats the last value before a gap, ``"interpolate"`` draws a line
                through it; gaps at the ends take the nearest value. ``None`` allows no gaps.

        Raises:
            ValueError: for NaN or infinite values; the message names the first one's column and
                time.
        """
        if fill is not None and fill not in FILLS:
            raise ValueError(f"fill={fill!r}: must be {' or '.join(map(repr, FILLS))}, or None")
        finite = np.isfinite(self.values)
        if finite.all():
            return self
        if fill is None or (empty := ~finite.any(0)).any():
            if fill is not None:
                names = [name for name, gone in zip(self.names, empty, strict=True) if gone]
                raise ValueError(f"nothing to fill from: no value in column {_listing(names)}")
            row, column = map(int, np.argwhere(~finite)[0])
            raise ValueError(
                f"column {self.names[column]!r} is {self.values[row, column]} at "
                f"{self._place(row)} ({(~finite).sum()} such values in all); "
                f"fill='ffill' or fill='interpolate' would close the gaps"
            )
        frame = pd.DataFrame(np.where(finite, self.values, np.nan))
        if fill == "interpolate":
            frame = frame.interpolate("linear", limit_direction="both")
        return replace(self, values=frame.ffill().bfill().to_numpy())

    def step(self) -> str:
        """The sampling step as pandas writes it: ``"h"``, ``"15min"``, ``"W-SUN"``.

        Raises:
            ValueError: for a table without times, and for times that are unsorted, repeated or not
                evenly spaced; the message names the place.
        """
        if self.times is None:
            raise ValueError("the data has no timestamps")
        return self.known_step or sampling_step(self.times)

    def future(self, steps: int) -> pd.DatetimeIndex:
        """The ``steps`` times that follow the last row."""
        assert self.times is not None
        return pd.date_range(self.times[-1], periods=steps + 1, freq=self.step())[1:]

    def frame(self) -> pd.DataFrame:
        """The table as the kind of data frame it came from."""
        return to_frame(self.values, self.columns, self.times, self.layout)

    def wide(self) -> pd.DataFrame:
        """The table as a wide frame."""
        return to_frame(self.values, self.columns, self.times)

    def _place(self, row: int) -> str:
        return f"row {row}" if self.times is None else str(self.times[row])


def read_csv(path: str | Path) -> Table:
    """A CSV file with a header, its times in the first column, one column per variate after it.

    A file with the columns ``unique_id, ds, y`` is read as a long frame.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see :func:`from_frame`; also for a repeated column name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}")
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].tolist()
        _no_duplicates(header)  # pandas would rename the second one
        frame = pd.read_csv(path, float_precision="high")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file: {str(error).strip()}") from error
    return from_frame(frame)


def from_frame(frame: pd.DataFrame) -> Table:
    """The table of a wide or long data frame.

    A wide frame has a ``DatetimeIndex`` (or its times in its first column) and one numeric column
    per variate; a long one has the columns ``unique_id``, ``ds`` and ``y`` (others are ignored),
    rows in any order.

    Raises:
        TypeError: for a frame without times.
        ValueError: for repeated or non-numeric columns, no columns or rows at all, times that can't
            be read, or a long frame with two values for one series and time.
    """
    if set(LONG_COLUMNS) <= set(frame.columns):
        frame, layout = _widen(frame), "long"
    else:
        frame, layout = _with_times(frame), "wide"
    _no_duplicates(list(frame.columns))
    if frame.empty:
        raise ValueError(f"no data: {len(frame)} rows and {frame.shape[1]} columns besides time")
    _only_numbers(frame)
    times = pd.DatetimeIndex(frame.index)
    if times.hasnans:
        raise ValueError(f"row {int(np.argmax(times.isna()))} has no timestamp")
    values = np.ascontiguousarray(frame.to_numpy(np.float64, na_value=np.nan))
    return Table(values, tuple(frame.columns), times, layout)  # type: ignore[arg-type]


def to_frame(
    values: Float[np.ndarray, "rows variates"],
    columns: Sequence[Hashable],
    times: pd.DatetimeIndex | None,
    layout: Layout = "wide",
) -> pd.DataFrame:
    """A wide frame (index ``times``), or a long one (columns ``unique_id``, ``ds``, ``y``)."""
    if layout == "wide":
        index = pd.RangeIndex(len(values)) if times is None else times
        return pd.DataFrame(values, index=index.rename("date"), columns=list(columns))
    rows, variates = values.shape
    stamps = np.arange(rows) if times is None else times
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.array(columns, dtype=object), rows),
            "ds": list(stamps) * variates,
            "y": values.T.ravel(),
        }
    )


def as_table(data: Any) -> Table:
    """A table from a wide or long data frame, the path of a CSV file, or a table.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, str | Path):
        return read_csv(data)
    if isinstance(data, pd.DataFrame):
        return from_frame(data)
    kind = type(data).__name__
    raise TypeError(f"needs a data frame, the path of a CSV file or a Table, got {kind}")


def sampling_step(times: pd.DatetimeIndex) -> str:
    """The step of evenly spaced times: a fixed one, or a calendar's (months, business days).

    Raises:
        ValueError: for times that are unsorted, repeated or unevenly spaced, or a single one.
    """
    if len(times) < 2:
        raise ValueError(f"needs two timestamps to tell the step, got {len(times)}")
    gaps = np.diff(times.asi8)
    if (gaps <= 0).any():
        i = int(np.argmax(gaps <= 0))
        what = "occurs twice" if gaps[i] == 0 else f"comes after {times[i]}"
        raise ValueError(f"timestamps must rise: {times[i + 1]} (row {i + 1}) {what}")
    if (gaps == gaps[0]).all():
        gap = times[1] - times[0]
        whole_weeks = gap % pd.Timedelta(days=7) == pd.Timedelta(0)
        if whole_weeks and gap == pd.Timedelta(days=7):
            return f"W-{times[0].day_name()[:3].upper()}"
        return str(to_offset(gap).freqstr)
    calendar = pd.infer_freq(times) if len(times) > 2 else None
    if calendar is not None:
        return calendar
    usual = int(np.median(gaps))
    i = int(np.argmax(gaps != usual))
    unit = times.unit
    raise ValueError(
        f"timestamps must be evenly spaced: {times[i + 1] - times[i]} between {times[i]} and "
        f"{times[i + 1]} (row {i + 1}), elsewhere {pd.Timedelta(usual, unit=unit)}; resample first"
    )


def _with_times(frame: pd.DataFrame) -> pd.DataFrame:
    if isinstance(frame.index, pd.DatetimeIndex):
        return frame
    first = frame.columns[0] if frame.shape[1] else None
    is_time = first is not None and (
        pd.api.types.is_datetime64_any_dtype(frame.iloc[:, 0])
        or (frame.iloc[:, 0].dtype == object)
        or str(first).lower() in TIME_NAMES
    )
    if not is_time:
        raise TypeError(
            f"needs a DatetimeIndex or times in the first column, got an index of "
            f"{type(frame.index).__name__} and a first column {first!r}"
        )
    return frame.iloc[:, 1:].set_axis(_parse_times(frame.iloc[:, 0]), axis=0)


def _widen(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.assign(ds=_parse_times(frame["ds"]))
    if (twice := frame.duplicated(["unique_id", "ds"])).any():
        row = frame[twice].iloc[0]
        raise ValueError(f"series {row['unique_id']!r} has two values at {row['ds']}")
    if not pd.api.types.is_numeric_dtype(frame["y"]):
        _only_numbers(frame[["y"]])
    return frame.pivot(index="ds", columns="unique_id", values="y")[frame["unique_id"].unique()]


def _parse_times(values: pd.Series) -> pd.DatetimeIndex:
    try:
        if pd.api.types.is_numeric_dtype(values):
            raise ValueError(f"its values are numbers such as {values.iloc[0]}")
        return pd.DatetimeIndex(pd.to_datetime(values, format=_iso(values)))
    except (ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"column {values.name!r} does not hold times: {reason}") from error


def _iso(values: pd.Series) -> str | None:
    return "ISO8601" if values.dtype == object else None


def _no_duplicates(columns: list[Hashable]) -> None:
    if twice := sorted({str(c) for c in columns if columns.count(c) > 1}):
        raise ValueError(f"column {', '.join(twice)} occurs more than once")


def _only_numbers(frame: pd.DataFrame) -> None:
    for name, column in frame.items():
        if not (pd.api.types.is_numeric_dtype(column) or column.dtype == bool):
            wrong = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
            example = f"{wrong.iloc[0]!r} at {wrong.index[0]}" if len(wrong) else str(column.dtype)
            raise ValueError(f"column {name!r} is not numeric: {example}")


def _listing(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
