"""The field's data sets in their own file formats, and one that comes with a Python package."""

import importlib.util
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from forecasting_kit.protocol import KINDS
from forecasting_kit.simulation import waves
from forecasting_kit.tables import Table, read_csv

ETT_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
TARGET = "OT"
_LONG = (96, 192, 336, 720)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set: where its file is expected and how the field uses it."""

    name: str
    kind: str
    """The file format and split, one of ``KINDS``."""
    file: str
    """Below the data folder; empty for one that an installed package holds."""
    rows: int
    variates: int
    step: str
    """The sampling step; the published runs use hourly time marks for every one that has dates."""
    horizons: tuple[int, ...] = _LONG
    lookback: int = 96
    columns: tuple[str, ...] = ()
    """The variates' names, where they are fixed."""

    @property
    def marks(self) -> str | None:
        """The time marks of the published runs."""
        return None if self.kind in ("solar", "pems") else "h"

    def load(self, root: str | Path = "data") -> Table:
        """Read the data set's file below ``root``.

        Raises:
            FileNotFoundError: when it is not there; the message says where it is expected.
        """
        if not self.file:
            return read_simbench("15min" if self.step == "15min" else "h")
        path = Path(root) / self.file
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.name}: no file at {path}; put the published file {self.file} below {root}"
            )
        table = read_file(path, self.kind)
        # Some published files lack a few rows; the field takes them as they are.
        return table if table.times is None else replace(table, known_step=self.known_step(table))

    def known_step(self, table: Table) -> str:
        """The step of the times, or what it is meant to be where they are not even."""
        try:
            return table.step()
        except ValueError:
            return self.step


DATASETS: dict[str, DataSet] = {
    data.name: data
    for data in (
        *(
            DataSet(
                name=name,
                kind="ett-hour" if "h" in name else "ett-minute",
                file=f"ETT-small/{name}.csv",
                rows=17420 if "h" in name else 69680,
                variates=7,
                step="h" if "h" in name else "15min",
                columns=ETT_COLUMNS,
            )
            for name in ("ETTh1", "ETTh2", "ETTm1", "ETTm2")
        ),
        DataSet(
            name="ECL", kind="custom", file="electricity/electricity.csv",
            rows=26304, variates=321, step="h",
        ),
        DataSet(
            name="Traffic", kind="custom", file="traffic/traffic.csv",
            rows=17544, variates=862, step="h",
        ),
        DataSet(
            name="Weather", kind="custom", file="weather/weather.csv",
            rows=52696, variates=21, step="10min",
        ),
        DataSet(
            name="Exchange", kind="custom", file="exchange_rate/exchange_rate.csv",
            rows=7588, variates=8, step="D",
        ),
        DataSet(
            name="ILI", kind="custom", file="illness/national_illness.csv",
            rows=966, variates=7, step="W", horizons=(24, 36, 48, 60), lookback=36,
        ),
        DataSet(
            name="Solar", kind="solar", file="Solar/solar_AL.txt",
            rows=52560, variates=137, step="10min",
        ),
        *(
            DataSet(
                name=name, kind="pems", file=f"PEMS/{name}.npz",
                rows=rows, variates=variates, step="5min", horizons=(12, 24, 48, 96),
            )
            for name, rows, variates in (
                ("PEMS03", 26208, 358), ("PEMS04", 16992, 307),
                ("PEMS07", 28224, 883), ("PEMS08", 17856, 170),
            )
        ),
        DataSet(name="SimBench", kind="custom", file="", rows=8784, variates=138, step="h"),
        DataSet(name="SimBench-15min", kind="custom", file="", rows=35136, variates=138,
                step="15min"),
    )
}  # fmt: skip
"""The data sets by name. SimBench is read from the installed ``simbench`` package."""


def load_data(
    source: str | Path,
    *,
    root: str | Path = "data",
    kind: str | None = None,
) -> Table:
    """A data set by its name (``DATASETS``; or ``waves``, simulated), or any file by its path.

    Args:
        source: a name or a path.
        root: the folder that the published files are below.
        kind: how a file is written, one of ``KINDS``; by default its suffix tells.

    Raises:
        FileNotFoundError: for neither a name nor a file; the message lists the names.
    """
    path = Path(source)
    if kind is None and str(source) == "waves":
        return waves()
    if kind is None and str(source) in DATASETS:
        return DATASETS[str(source)].load(root)
    if not path.is_file():
        raise FileNotFoundError(
            f"{source}: no such file, and no data set of that name; known are {', '.join(DATASETS)}"
        )
    return read_file(path, kind)


def read_file(path: str | Path, kind: str | None = None) -> Table:
    """A file of the given kind, or of the one its suffix tells (.npz pems, .txt solar, else CSV).

    ``custom`` moves a column named ``OT``, the published target, to the last place. Columns of a
    CSV file whose kind is not told stay in order.
    """
    path = Path(path)
    match kind or {".npz": "pems", ".txt": "solar"}.get(path.suffix, "csv"):
        case "pems":
            return read_pems(path)
        case "solar":
            return read_solar(path)
        case "csv" | "ett-hour" | "ett-minute":
            return read_csv(path)
        case "custom":
            table = read_csv(path)
            others = [name for name in table.names if name != TARGET]
            return table if len(others) == len(table.names) else table.select([*others, TARGET])
    raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")


def read_solar(path: str | Path) -> Table:
    """Plain text without header or dates: comma-separated numbers, one row per step.

    Raises:
        ValueError: for something else than numbers, or rows of different lengths.
    """
    try:
        frame = pd.read_csv(path, header=None, dtype=np.float64, float_precision="high")
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip()
        raise ValueError(f"{path} is not a table of comma-separated numbers: {reason}") from error
    return Table(frame.to_numpy(), tuple(map(str, frame.columns)))


def read_pems(path: str | Path) -> Table:
    """An NPZ file with ``data`` of shape [steps, sensors, channels]; the flow, channel 0, is read.

    Raises:
        ValueError: for another layout, and for arrays of Python objects, which can't be read
            without running what they hold.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "data" not in archive:
                raise ValueError(f"it has no entry 'data', only {', '.join(archive.files)}")
            data = archive["data"]
        if data.ndim != 3 or data.dtype.kind not in "fiu":
            raise ValueError(
                f"its data is {data.dtype} {list(data.shape)}: must be numbers, "
                f"steps x sensors x channels"
            )
    except (ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} was refused: {error}") from error
    values = np.ascontiguousarray(data[..., 0], dtype=np.float64)
    return Table(values, tuple(str(i) for i in range(values.shape[1])))


def read_simbench(step: str = "h", columns: Sequence[str] | None = None) -> Table:
    """Loads and renewables of the German grid benchmark SimBench, 2016, relative to their peaks.

    96 active-power load profiles (households, shops, farms, heat pumps, chargers, aggregates) and
    42 renewable ones (PV, wind, biomass, hydro, aggregates), read from the installed ``simbench``
    package without importing it. The file is written in local time; its rows are evenly spaced, so
    they are numbered in standard time here.

    Args:
        step: ``"15min"`` as recorded, or ``"h"`` for hourly means.
        columns: only these.

    Raises:
        ModuleNotFoundError: when the package is not installed.
    """
    if step not in ("h", "15min"):
        raise ValueError(f"step={step!r}: must be 'h' or '15min'")
    spec = importlib.util.find_spec("simbench")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the SimBench data comes with the package simbench: install it")
    folder = Path(spec.submodule_search_locations[0]) / "networks/1-complete_data-mixed-all-0-sw"
    parts = [
        pd.read_csv(
            folder / name,
            sep=";",
            usecols=lambda column: not column.endswith("_qload") and column != "time",
            float_precision="high",
        )
        for name in ("LoadProfile.csv", "RESProfile.csv")
    ]
    frame = pd.concat(parts, axis=1)
    values = frame.to_numpy(np.float64)
    if step == "h":
        values = values.reshape(-1, 4, values.shape[1]).mean(1)
    times = pd.date_range("2016-01-01", periods=len(values), freq=step)
    table = Table(values, tuple(frame.columns), times)
    return table if columns is None else table.select(columns)
