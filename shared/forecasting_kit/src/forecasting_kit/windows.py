"""Lookback and horizon windows, cut by stride from a table that is held once."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Batch(NamedTuple):
    """Some windows: what is known, what follows, and the time marks of both."""

    x: Float[Tensor, "batch lookback variates"]
    y: Float[Tensor, "batch horizon targets"]
    marks: Float[Tensor, "batch span marks"] | None = None
    """Of lookback and horizon."""

    @property
    def past_marks(self) -> Float[Tensor, "batch lookback marks"] | None:
        """The marks of the known steps, which is what most forecasters take."""
        return None if self.marks is None else self.marks[:, : self.x.shape[1]]


class Windows:
    """Every window of a stretch of rows: window i knows rows [i, i+L) and asks for [i+L, i+L+H).

    Index it by a list or tensor of window numbers for a :class:`Batch`; the rows stay where they
    are until then, and windows share them.

    Args:
        values: [rows, variates], in scaled space.
        lookback: L, the steps that are known.
        horizon: H, the steps asked for.
        marks: [rows, marks], time features of each row.
        last_only: ask for the last variate alone (the ``MS`` setting).

    Raises:
        ValueError: for sizes below 1, too few rows for one window, or marks of another length.
    """

    def __init__(
        self,
        values: Tensor,
        lookback: int,
        horizon: int,
        *,
        marks: Tensor | None = None,
        last_only: bool = False,
    ) -> None:
        require_sizes(lookback, horizon)
        if values.ndim != 2 or not values.shape[1]:
            raise ValueError(f"values {list(values.shape)}: must be rows x variates, 1 at least")
        if len(values) < lookback + horizon:
            raise ValueError(
                f"{len(values)} rows are fewer than lookback + horizon = "
                f"{lookback} + {horizon} = {lookback + horizon}"
            )
        if marks is not None and (marks.ndim != 2 or len(marks) != len(values)):
            raise ValueError(
                f"marks {list(marks.shape)}: must be rows x marks with {len(values)} rows, "
                f"one for each row of the values"
            )
        self.values = values.contiguous()
        self.marks = None if marks is None or not marks.shape[1] else marks.contiguous()
        self.lookback, self.horizon, self.last_only = lookback, horizon, last_only

    def __len__(self) -> int:
        return len(self.values) - self.lookback - self.horizon + 1

    @property
    def variates(self) -> int:
        return self.values.shape[1]

    @property
    def targets(self) -> int:
        """How many variates are asked for."""
        return 1 if self.last_only else self.variates

    def __getitem__(self, index: Int[Tensor, " batch"] | Sequence[int]) -> Batch:
        index = torch.as_tensor(index, device=self.values.device)
        marks = None if self.marks is None else self._gather(self.marks, index)
        return self._batch(self._gather(self.values, index), marks)

    def __getitems__(self, index: list[int]) -> Batch:
        """A whole batch at once for a ``DataLoader`` whose ``collate_fn`` is the identity."""
        return self[index]

    def blocks(self, size: int) -> Iterator[Batch]:
        """All windows in order, ``size`` at a time, the last ones fewer; nothing is copied."""
        values = self._unfold(self.values)
        marks = None if self.marks is None else self._unfold(self.marks)
        for start in range(0, len(self), size):
            block = slice(start, start + size)
            yield self._batch(values[block], None if marks is None else marks[block])

    def columns(self, variates: slice | Sequence[int]) -> "Windows":
        """The windows of some of the variates."""
        return Windows(
            self.values[:, variates],
            self.lookback,
            self.horizon,
            marks=self.marks,
            last_only=self.last_only,
        )

    def to(self, *args: Any, **kwargs: Any) -> "Windows":
        """The windows on another device."""
        return Windows(
            self.values.to(*args, **kwargs),
            self.lookback,
            self.horizon,
            marks=None if self.marks is None else self.marks.to(*args, **kwargs),
            last_only=self.last_only,
        )

    def _unfold(self, rows: Float[Tensor, "rows c"]) -> Float[Tensor, "windows span c"]:
        return rows.unfold(0, self.lookback + self.horizon, 1).mT

    def _gather(self, rows: Float[Tensor, "rows c"], index: Tensor) -> Float[Tensor, "b span c"]:
        # A window is one run of memory, so that gathering copies runs rather than numbers.
        span, width = self.lookback + self.horizon, rows.shape[1]
        runs = rows.as_strided((len(self), span * width), (width, 1))
        return runs.index_select(0, index).view(-1, span, width)

    def _batch(self, span: Float[Tensor, "b span v"], marks: Tensor | None) -> Batch:
        y = span[:, self.lookback :]
        return Batch(span[:, : self.lookback], y[..., -1:] if self.last_only else y, marks)


def run(model: nn.Module, batch: Batch) -> Float[Tensor, "batch horizon targets"]:
    """What ``model(x, marks)`` forecasts for the batch's targets: its last steps and last variates.

    A model with a true attribute ``future_marks`` is given the marks of lookback and horizon, any
    other those of the lookback. Both are given in the precision of the model's weights.

    Raises:
        ValueError: when the model was made for another lookback or returns another size.
    """
    lookback = getattr(getattr(model, "config", None), "lookback", batch.x.shape[1])
    if batch.x.shape[1] != lookback:
        raise ValueError(f"windows of lookback {batch.x.shape[1]}: the model takes {lookback}")
    marks = batch.marks if getattr(model, "future_marks", False) else batch.past_marks
    dtype = next(model.parameters(), batch.x).dtype
    forecast = model(batch.x.to(dtype), None if marks is None else marks.to(dtype))
    steps, targets = batch.y.shape[1:]
    if forecast.ndim != 3 or forecast.shape[1] < steps or forecast.shape[2] < targets:
        raise ValueError(
            f"{type(model).__name__} returned {list(forecast.shape)}: "
            f"must be batch x horizon x variates with horizon {steps} and variates {targets}"
        )
    return forecast[:, -steps:, -targets:]


def require_sizes(lookback: int, horizon: int) -> None:
    for name, size in (("lookback", lookback), ("horizon", horizon)):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}={size!r}: must be an integer of at least 1")
