"""Training on one device: Adam, a rate per epoch, early stopping on the exact validation error."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from forecasting_kit.evaluation import Steps, evaluate
from forecasting_kit.windows import Batch, Windows, run

SCHEDULES = ("type1", "type2", "type3", "cosine", "constant")
_TYPE2 = {2: 5e-5, 4: 1e-5, 6: 5e-6, 8: 1e-6, 10: 5e-7, 15: 1e-7, 20: 5e-8}


def learning_rate(schedule: str, epoch: int, lr: float, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0, under the field's schedules.

    The published loops set the rate at an epoch's end for the next one, with that end's own number:
    the first two epochs run at ``lr`` and everything is one epoch late. So it is here.

    - ``type1``: halved at each end.
    - ``type2``: 5e-5 after epoch 2, 1e-5 after 4, ... whatever ``lr``.
    - ``type3``: ``lr`` until the end of epoch 3, then times 0.9 at each end.
    - ``cosine``: half a period over ``epochs``.
    - ``constant``.

    Raises:
        ValueError: for an unknown schedule.
    """
    ended = epoch  # epochs that are over; their count is the published loops' epoch number
    match schedule:
        case "type1":
            return lr * 0.5 ** max(ended - 1, 0)
        case "type2":
            return next((_TYPE2[e] for e in sorted(_TYPE2, reverse=True) if e <= ended), lr)
        case "type3":
            return lr * 0.9 ** max(ended - 3, 0)
        case "cosine":
            return lr / 2 * (1 + math.cos(math.pi * ended / epochs))
        case "constant":
            return lr
    raise ValueError(f"schedule={schedule!r}: must be one of {', '.join(SCHEDULES)}")


def training_loss(model: nn.Module, batch: Batch, variates: int | None = None) -> Tensor:
    """Mean squared error of a batch, over a fresh random subset of ``variates`` if given.

    All windows of the batch share the subset ("efficient training"). The target that a model with
    ``last_only`` windows is scored on always stays.

    Raises:
        ValueError: for a subset that is empty or larger than the variates.
    """
    if variates is not None:
        batch = _subset(batch, variates)
    return F.mse_loss(run(model, batch), batch.y)


def _subset(batch: Batch, variates: int) -> Batch:
    total, targets = batch.x.shape[2], batch.y.shape[2]
    if not 1 <= variates <= total:
        raise ValueError(f"variates per batch {variates}: must be from 1 to the {total} there are")
    if targets < total:
        inputs = torch.randperm(total - targets)[: variates - targets]
        inputs = torch.cat([inputs, torch.arange(total - targets, total)]).to(batch.x.device)
        return batch._replace(x=batch.x[..., inputs])
    chosen = torch.randperm(total)[:variates].to(batch.x.device)
    return batch._replace(x=batch.x[..., chosen], y=batch.y[..., chosen])


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of a training's history."""

    epoch: int
    learning_rate: float
    train_mse: float
    val_mse: float | None
    """Over every window of the validation split; ``None`` without one."""


def fit(
    model: nn.Module,
    train: Windows,
    val: Windows | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 1e-4,
    schedule: str = "type1",
    patience: int = 3,
    variates_per_batch: int | None = None,
    drop_last: bool = False,
    seed: int = 0,
    progress: bool | Steps = False,
) -> list[Epoch]:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Adam on the mean squared error; best is the epoch of least validation error (the last without a
    validation split), and training stops after ``patience`` epochs that were not better. An epoch's
    randomness is a function of the seed and the epoch; the global generator is left as it was.

    Args:
        model: called as ``model(x, marks)``; on the device of the windows.
        train: windows to learn from.
        val: windows that tell the best epoch.
        epochs: at most.
        batch_size: windows per step.
        lr: Adam's first learning rate.
        schedule: see :func:`learning_rate`.
        patience: epochs without improvement before stopping.
        variates_per_batch: see :func:`training_loss`.
        drop_last: leave out a last batch that is smaller than the others.
        seed: of order, dropout and subsets.
        progress: show a bar, or draw one with the given function.

    Raises:
        ValueError: for settings below 1, an unknown schedule, or a loss that is not finite.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("patience", patience)):
        if value < 1:
            raise ValueError(f"{name}={value!r}: must be at least 1")
    if not lr > 0:
        raise ValueError(f"lr={lr!r}: must be above 0")
    learning_rate(schedule, 0, lr, epochs)
    if drop_last and len(train) < batch_size:
        raise ValueError(f"batch_size={batch_size} with drop_last: only {len(train)} windows")
    device = train.values.device
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    history: list[Epoch] = []
    best, best_mse, waited = None, math.inf, 0
    devices = [device] if device.type == "cuda" else []
    with progress_bar(progress) as bar, torch.random.fork_rng(devices):
        for epoch in range(epochs):
            torch.manual_seed(seed * 1_000_003 + epoch)
            rate = learning_rate(schedule, epoch, lr, epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batches = list(torch.randperm(len(train)).to(device).split(batch_size))
            if drop_last and len(batches[-1]) < batch_size:
                batches.pop()
            model.train()
            total = torch.zeros((), device=device)
            for index in bar(batches, len(batches), f"epoch {epoch + 1}/{epochs}"):
                loss = training_loss(model, train[index], variates_per_batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            train_mse = total.item() / len(batches)
            if not math.isfinite(train_mse):
                raise ValueError(f"training diverged in epoch {epoch + 1}: a lower lr than {lr}?")
            val_mse = None if val is None else evaluate(model, val).mse
            history.append(
                Epoch(epoch=epoch + 1, learning_rate=rate, train_mse=train_mse, val_mse=val_mse)
            )
            if val_mse is None:
                continue
            if val_mse <= best_mse:
                best, best_mse, waited = copy.deepcopy(model.state_dict()), val_mse, 0
            else:
                waited += 1
                if waited >= patience:
                    break
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return history


@contextmanager
def progress_bar(visible: bool | Steps) -> Iterator[Steps]:
    """A function (steps, how many, what) -> the steps, drawing a bar if ``visible``."""
    if not isinstance(visible, bool):
        yield visible
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not (visible and console.is_terminal),
        transient=True,
    ) as bar:
        yield lambda steps, total, what: bar.track(steps, total=total, description=what)
