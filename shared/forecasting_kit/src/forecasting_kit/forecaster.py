"""The user's object around a forecasting network: fit, predict, evaluate, backtest, save, load."""

import dataclasses
import json
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from attention_core import PaperModel, atomic_path, from_dict, to_dict
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from forecasting_kit import fitting
from forecasting_kit.baselines import baselines
from forecasting_kit.evaluation import BLOCK, evaluate
from forecasting_kit.marks import mark_names
from forecasting_kit.metrics import Errors, forecast_errors
from forecasting_kit.protocol import (
    Split,
    Splits,
    prepare,
    select_features,
    slice_of,
    split_rows,
    table_marks,
)
from forecasting_kit.scaling import Scaler
from forecasting_kit.tables import Table, as_table, to_frame
from forecasting_kit.windows import Batch, require_sizes, run

Data = pd.DataFrame | Table | str | Path
"""A wide or long frame, a table, or the path of a CSV file."""

SIZES = ("lookback", "horizon", "variates", "marks")
SETTINGS = ("lookback", "horizon", "features", "target", "marks", "split", "fill")
BUNDLE = "forecasting-kit"
"""The metadata entry of a bundle."""


@dataclass(frozen=True)
class Evaluation:
    """Errors on one split in scaled space, next to what any forecaster has to beat."""

    split: str
    columns: tuple[str, ...]
    errors: Errors
    baselines: Mapping[str, Errors]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "split": self.split,
            **self.errors.to_dict(self.columns),
            "baselines": {
                name: {"mse": e.mse, "mae": e.mae, "median_mse": e.median_mse}
                for name, e in self.baselines.items()
            },
        }


@dataclass(frozen=True)
class Backtest:
    """Forecasts from past moments next to what then happened, in the data's own units."""

    frame: pd.DataFrame
    """Columns ``unique_id, ds, cutoff, y, forecast``; ``cutoff`` is the last known time."""
    errors: Errors
    """In scaled space."""


class Forecaster:
    """Fits a paper's network to a table of series and forecasts what follows it.

    A package subclasses it and sets ``model_class``::

        class Forecaster(forecasting_kit.Forecaster):
            model_class = ITransformer

        Forecaster(lookback=96, horizon=24, heads=4).fit(frame).predict(frame)

    Args:
        lookback: steps the network sees.
        horizon: steps it forecasts.
        features: ``"M"`` forecasts every column from every column, ``"S"`` the target from itself,
            ``"MS"`` the target from every column.
        target: the column that ``"S"`` and ``"MS"`` forecast; the last one unless named.
        marks: time features for the network: of the step given here (``"h"``, as in all published
            runs), of the data's own step (``"auto"``), or none (``None``).
        split: which rows train, validate and test: a kind of data set (``"custom"``: 70/10/20 %) or
            three shares.
        fill: how to close gaps, ``"ffill"`` or ``"interpolate"``; by default a gap is an error.
        device: where the network runs; a GPU if there is one.
        options: the fields of the network's configuration.

    Raises:
        ValueError: for sizes below 1, or an option that the configuration refuses.
    """

    model_class: ClassVar[type[PaperModel]]

    def __init__(
        self,
        lookback: int = 96,
        horizon: int = 96,
        *,
        features: str = "M",
        target: Hashable | None = None,
        marks: str | None = "auto",
        split: Split = "custom",
        fill: str | None = None,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> None:
        require_sizes(lookback, horizon)
        if features not in ("M", "S", "MS"):
            raise ValueError(f"features={features!r}: must be 'M', 'S' or 'MS'")
        if marks not in (None, "auto"):
            mark_names(marks)
        if not isinstance(split, str):
            split = tuple(split)
        split_rows(split, 10**6, lookback)
        self.lookback, self.horizon = lookback, horizon
        self.features, self.target = features, None if target is None else str(target)
        self.marks, self.split, self.fill = marks, split, fill
        self.device = _device(device)
        self.options = options
        self.model: PaperModel | None = None
        self.columns: tuple[str, ...] = ()
        self.scaler: Scaler | None = None
        self.step: str | None = None
        self.history: list[fitting.Epoch] = []
        self.configure(variates=1, marks=0)  # so that a bad option is told at once

    # -- the network ---------------------------------------------------------------------------

    def configure(self, *, variates: int, marks: int) -> Any:
        """The network's configuration for the data's number of variates and time marks.

        The default fills in those of ``lookback``, ``horizon``, ``variates`` and ``marks`` that the
        configuration has; a package with other names overrides it.
        """
        values = (self.lookback, self.horizon, variates, marks)
        known = self._fields()
        sizes = {name: v for name, v in zip(SIZES, values, strict=True) if name in known}
        return from_dict(self.model_class.config_class, {**sizes, **self.options})

    @classmethod
    def _fields(cls) -> set[str]:
        return {field.name for field in dataclasses.fields(cls.model_class.config_class)}

    @classmethod
    def adopt(cls, model: PaperModel, *, data: Data | None = None, **settings: Any) -> Self:
        """A forecaster around a network that is trained already, such as the authors' checkpoint.

        Args:
            model: of ``model_class``; its configuration tells lookback, horizon and options.
            data: what it was trained on, for the scale of its training rows; without it, a scale is
                taken from whatever data is evaluated or forecast.
            settings: ``features``, ``marks``, ``split``, ... as for the constructor; by default
                hourly marks, as in all published runs, if the network takes any.

        Raises:
            ValueError: for settings that don't fit the network.
        """
        config = to_dict(model.config)
        taken = config.get("marks", 0)
        marks = settings.setdefault("marks", "h" if taken else None)
        if "marks" in config and marks != "auto":
            given = 0 if marks is None else len(mark_names(marks))
            if given != taken:
                raise ValueError(f"marks={marks!r} are {given} per step, the network takes {taken}")
        options = {k: v for k, v in config.items() if k not in SIZES}
        new = cls(config["lookback"], config["horizon"], **settings, **options)
        new.model = model.to(new.device).eval()
        if data is not None:
            new._learn(new._prepare(as_table(data), fresh=True))
        return new

    # -- working with data ---------------------------------------------------------------------

    def fit(
        self,
        data: Data,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        lr: float = 5e-4,
        schedule: str = "type1",
        patience: int = 3,
        variates_per_batch: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Self:
        """Train a fresh network; ``history`` tells each epoch's errors. See :func:`fitting.fit`.

        Raises:
            ValueError: for data that doesn't fit; the message names column, time or size.
        """
        splits = self._prepare(as_table(data), fresh=True)
        marks = 0 if splits.train.marks is None else splits.train.marks.shape[1]
        config = self.configure(variates=splits.train.variates, marks=marks)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            model = self.model_class(config).to(self.device)
        self.history = fitting.fit(
            model,
            splits.train,
            splits.val,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            schedule=schedule,
            patience=patience,
            variates_per_batch=variates_per_batch,
            seed=seed,
            progress=progress,
        )
        self.model = model
        self._learn(splits)
        return self

    def predict(self, data: Data) -> pd.DataFrame:
        """The ``horizon`` steps after the end of ``data``: future times, the data's own units.

        Only the last ``lookback`` rows are forecast from. Columns may be fewer or others than those
        trained on, if the network takes any number; an unknown one is scaled by the history given
        here, with a warning.

        Returns:
            A frame of the kind that was given: wide with the future times as index, or long.

        Raises:
            ValueError: for data that doesn't fit; the message names column, time or size.
        """
        table = self._usable(as_table(data))
        if len(table) < self.lookback:
            raise ValueError(f"{len(table)} rows are fewer than the lookback of {self.lookback}")
        scaler = self._scaler_for(table)
        if self.fill is not None:
            table = table.complete(self.fill)
        table = table.tail(self.lookback).complete()
        forecast = self._forecast(scaler, table, [len(table)])[0]
        targets = self._targets(table)
        values = scaler.select(slice(-len(targets), None)).inverse(forecast)
        times = None if table.times is None else table.future(self.horizon)
        return to_frame(values, targets, times, table.layout)

    def evaluate(
        self, data: Data, split: str = "test", *, compare: bool = True, progress: bool = False
    ) -> Evaluation:
        """Errors over every window of a split, in scaled space as the papers report them.

        Windows are taken in fixed blocks, so that no batch size changes a bit of the result.

        Args:
            data: the whole table; the split's rows are taken from it.
            split: ``"train"``, ``"val"`` or ``"test"``.
            compare: score the baselines as well.
            progress: show a bar.
        """
        network = self._network()
        splits = self._prepare(as_table(data))
        windows = splits[split]
        with fitting.progress_bar(progress) as bar:
            errors = evaluate(network, windows, progress=bar)
        others = {}
        if compare:
            times = splits.table.times
            models = baselines(splits.train, None if times is None else splits.table.step())
            others = {name: evaluate(model, windows) for name, model in models.items()}
        columns = tuple(map(str, self._targets(splits.table)))
        return Evaluation(split, columns, errors, others)

    def splits(self, data: Data) -> Splits:
        """The data as the network sees it: scaled, cut into the windows of each split.

        Raises:
            ValueError: for data that doesn't fit; the message names column, time or size.
        """
        return self._prepare(as_table(data))

    def backtest(self, data: Data, *, windows: int = 1, step: int | None = None) -> Backtest:
        """Forecast from ``windows`` past moments, ``step`` rows apart, the last one horizon ago.

        The network is not trained again in between.

        Args:
            data: the history; its end is what the last forecast is held against.
            windows: how many forecasts.
            step: rows between their starts; one horizon by default.

        Raises:
            ValueError: when the data is too short for so many.
        """
        step = self.horizon if step is None else step
        if windows < 1 or step < 1:
            raise ValueError(f"windows={windows}, step={step}: both must be at least 1")
        table = self._usable(as_table(data)).complete(self.fill)
        needed = self.lookback + self.horizon + (windows - 1) * step
        if len(table) < needed:
            raise ValueError(
                f"{windows} windows {step} apart need {needed} rows of data, got {len(table)}"
            )
        scaler, targets = self._scaler_for(table), self._targets(table)
        ends = [len(table) - self.horizon - i * step for i in reversed(range(windows))]
        forecast = self._forecast(scaler, table, ends)
        scaled = scaler.transform(table.values)[:, -len(targets) :]
        true = np.stack([scaled[end : end + self.horizon] for end in ends])
        scaler = scaler.select(slice(-len(targets), None))
        frame = _backtest_frame(
            table.times, ends, targets, scaler.inverse(true), scaler.inverse(forecast)
        )
        errors = forecast_errors(torch.from_numpy(forecast), torch.from_numpy(true))
        return Backtest(frame, errors)

    # -- the bundle ----------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one file: weights, configuration, scale, columns and step; all of it or nothing.

        It is a safetensors file whatever its suffix, so that loading it runs no code.
        """
        model = self._network()
        tensors = {
            f"model.{key}": value.detach().cpu().clone().contiguous()
            for key, value in model.state_dict().items()
        }
        if self.scaler is not None:
            tensors["scaler.mean"] = torch.from_numpy(self.scaler.mean)
            tensors["scaler.scale"] = torch.from_numpy(self.scaler.scale)
        about = {
            "version": 1,
            "model": self.model_class.__name__,
            "config": to_dict(model.config),
            "settings": {name: getattr(self, name) for name in SETTINGS},
            "options": self.options,
            "columns": self.columns,
            "step": self.step,
        }
        with atomic_path(path) as part:
            save_file(tensors, part, metadata={BUNDLE: json.dumps(about)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device | None = None) -> Self:
        """The forecaster that :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: for another kind of file, or another paper's bundle.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no bundle at {path}")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[BUNDLE])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError) as error:
            raise ValueError(
                f"{path} is not a bundle written by save() or train; "
                f"the authors' checkpoints are read by import"
            ) from error
        if about["model"] != cls.model_class.__name__:
            raise ValueError(f"{path} holds a {about['model']}, not a {cls.model_class.__name__}")
        new = cls(**about["settings"], device=device, **about["options"])
        weights = {
            key.removeprefix("model."): value
            for key, value in tensors.items()
            if key.startswith("model.")
        }
        config = from_dict(cls.model_class.config_class, about["config"])
        new.model = cls.model_class.from_state(config, weights).to(new.device)
        new.columns, new.step = tuple(about["columns"]), about["step"]
        if "scaler.mean" in tensors:
            new.scaler = Scaler(tensors["scaler.mean"].numpy(), tensors["scaler.scale"].numpy())
        return new

    # -- parts ---------------------------------------------------------------------------------

    def _network(self) -> PaperModel:
        if self.model is None:
            raise RuntimeError("this forecaster has no network yet: call fit() or load() first")
        return self.model

    def _usable(self, table: Table) -> Table:
        """The columns that the network takes, the target last where there is one."""
        self._network()
        if table.times is not None and self.step not in (None, step := table.step()):
            raise ValueError(f"the data's step is {step}, the network was trained on {self.step}")
        if self.columns and "variates" in self._fields():
            return table.select(self.columns)
        return select_features(table, self.features, self.target)

    def _prepare(self, table: Table, *, fresh: bool = False) -> Splits:
        scaler = None
        if table.times is not None:
            table.step()  # uneven times are told before anything is trained on them
        if not fresh:
            table = self._usable(table)
            rows = split_rows(self.split, len(table), self.lookback)["train"]
            scaler = self._scaler_for(table, slice_of(rows))
        return prepare(
            table,
            self.lookback,
            self.horizon,
            split=self.split,
            features=self.features,
            target=self.target,
            marks=self.marks,
            scaler=scaler,
            fill=self.fill,
            device=self.device,
        )

    def _learn(self, splits: Splits) -> None:
        """Keep what later data is read by."""
        table = splits.table
        self.columns, self.scaler = table.names, splits.scaler
        self.step = None if table.times is None else table.step()
        self.target = None if self.features == "M" else table.names[-1]

    def _scaler_for(self, table: Table, rows: slice = slice(None)) -> Scaler:
        """The trained scale of known columns; that of ``rows`` for the others."""
        unknown = [name for name in table.names if name not in self.columns]
        if self.scaler is not None and not unknown:
            return self.scaler.select([self.columns.index(name) for name in table.names])
        warnings.warn(
            f"scaled by the data given here, since the network was not trained on it: "
            f"{', '.join(unknown[:8])}{' ...' if len(unknown) > 8 else ''}",
            stacklevel=3,
        )
        values = np.where(np.isfinite(table.values), table.values, np.nan)[rows]
        fitted = Scaler.fit(values)
        if self.scaler is None:
            return fitted
        known = [(i, self.columns.index(n)) for i, n in enumerate(table.names) if n not in unknown]
        here, there = [i for i, _ in known], [j for _, j in known]
        fitted.mean[here], fitted.scale[here] = self.scaler.mean[there], self.scaler.scale[there]
        return fitted

    def _targets(self, table: Table) -> tuple[Hashable, ...]:
        return table.columns if self.features == "M" else table.columns[-1:]

    def _forecast(
        self, scaler: Scaler, table: Table, ends: Sequence[int]
    ) -> Float[np.ndarray, "windows horizon targets"]:
        """Forecasts, in scaled space, of what follows the first ``end`` rows, for each end."""
        model, targets = self._network(), len(self._targets(table))
        values = torch.from_numpy(scaler.transform(table.values).astype(np.float32))
        marks = table_marks(table, self.marks, future=self.horizon)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(ends), BLOCK):
                rows = torch.tensor(ends[start : start + BLOCK])[:, None] - self.lookback
                x = values[rows + torch.arange(self.lookback)].to(self.device)
                span = rows + torch.arange(self.lookback + self.horizon)
                batch = Batch(
                    x,
                    x.new_empty(len(x), self.horizon, targets),
                    None if marks is None else marks[span].to(self.device),
                )
                parts.append(run(model.eval(), batch).double().cpu())
        return torch.cat(parts).numpy()


def _device(name: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device={name!r}: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name!r}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def _backtest_frame(
    times: pd.DatetimeIndex | None,
    ends: Sequence[int],
    columns: Sequence[Hashable],
    true: Float[np.ndarray, "windows horizon targets"],
    forecast: Float[np.ndarray, "windows horizon targets"],
) -> pd.DataFrame:
    windows, horizon, targets = true.shape
    stamps = pd.RangeIndex(ends[-1] + horizon) if times is None else times
    rows = np.array(ends)[:, None, None] + np.arange(horizon)
    each = (windows, targets, horizon)
    return pd.DataFrame(
        {
            "unique_id": np.broadcast_to(np.array(columns, object)[:, None], each).ravel(),
            "ds": stamps.take(np.broadcast_to(rows, each).ravel()),
            "cutoff": stamps.take(np.broadcast_to(rows[..., :1] - 1, each).ravel()),
            "y": true.swapaxes(1, 2).ravel(),
            "forecast": forecast.swapaxes(1, 2).ravel(),
        }
    )
