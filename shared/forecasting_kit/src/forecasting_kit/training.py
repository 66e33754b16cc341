"""Training on Lightning's engine, for one GPU or many; ``lightning`` is imported only here.

A package's ``train.py`` says which network its configuration makes::

    class Training(ForecastModule):
        def __init__(self, network: ITransformerConfig, **training: Any) -> None:
            super().__init__(ITransformer(network), **training)

    if __name__ == "__main__":
        main(Training, ForecastDataModule, package="itransformer", monitor="val_mse")
"""

from typing import Any

import torch
from attention_core.training import DataModule
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from forecasting_kit.datasets import DATASETS, load_data
from forecasting_kit.evaluation import BLOCK
from forecasting_kit.fitting import learning_rate, training_loss
from forecasting_kit.metrics import METRICS, Errors, ErrorSums, error_sums
from forecasting_kit.protocol import Splits, prepare
from forecasting_kit.windows import Batch, Windows, run


class ForecastErrors(Metric):
    """Float64 sums of all processes' forecast errors; ``Errors.of`` tells what they amount to."""

    full_state_update = False
    higher_is_better = False

    def __init__(self, steps: int, targets: int) -> None:
        super().__init__()
        for name in ErrorSums._fields:
            size = (steps, targets) if name in ("absolute", "squared") else ()
            zero = torch.zeros(size, dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")

    def update(self, forecast: Tensor, true: Tensor) -> None:
        for name, value in error_sums(forecast, true)._asdict().items():
            setattr(self, name, getattr(self, name) + value)

    def compute(self) -> ErrorSums:
        return ErrorSums(*(getattr(self, name) for name in ErrorSums._fields))


class ForecastDataModule(DataModule):
    """A data set cut into windows by the field's protocol, kept whole on the training device.

    A batch is gathered at once by its window numbers. Evaluation takes every window once, in fixed
    blocks, so that its result does not depend on ``batch_size``.

    Args:
        data: a data set by name (``DATASETS``), or the path of a file.
        root: the folder that the published files are below.
        kind: how a file is written and split: ``custom``, ``ett-hour``, ``ett-minute``, ``solar``
            or ``pems``; a named data set has its own.
        lookback: steps known.
        horizon: steps asked for.
        features: ``M``, ``S`` or ``MS``.
        target: the column of ``S`` and ``MS``.
        marks: step of the time features: ``h`` in all published runs, ``auto`` for the data's own,
            ``null`` for none.
        split: shares of train, val and test instead of the kind's.
        batch_size: windows per step and process.
        drop_last: leave out a last training batch that is smaller than the others.
        variates: train and validate on so many variates only, test on all ("partial training").
        first_variate: the first one of them.
        fill: how to close gaps, ``ffill`` or ``interpolate``.
    """

    def __init__(
        self,
        data: str = "SimBench",
        root: str = "data",
        kind: str | None = None,
        lookback: int = 96,
        horizon: int = 96,
        features: str = "M",
        target: str | None = None,
        marks: str | None = "h",
        split: tuple[float, float, float] | None = None,
        batch_size: int = 32,
        drop_last: bool = False,
        variates: int | None = None,
        first_variate: int = 0,
        fill: str | None = None,
    ) -> None:
        super().__init__()
        if variates is not None and features == "MS":
            raise ValueError("variates: the MS setting needs its target, the last variate")
        self.data, self.root, self.kind = data, root, kind
        self.lookback, self.horizon = lookback, horizon
        self.features, self.target, self.marks = features, target, marks
        self.split, self.fill = split, fill
        self.batch_size, self.drop_last = batch_size, drop_last
        self.variates, self.first_variate = variates, first_variate
        self.splits: Splits | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        known = DATASETS.get(self.data) if self.kind is None else None
        self.splits = prepare(
            load_data(self.data, root=self.root, kind=self.kind),
            self.lookback,
            self.horizon,
            split=self.split or self.kind or (known.kind if known else "custom"),
            features=self.features,
            target=self.target,
            marks=self.marks,
            fill=self.fill,
        )
        total = self.splits.test.variates if self.splits.test else self.splits.train.variates
        if self.variates is not None:
            last = self.first_variate + self.variates
            if self.variates < 1 or self.first_variate < 0 or last > total:
                raise ValueError(
                    f"variates={self.variates} from {self.first_variate}: the data has {total}"
                )

    def windows(self, split: str) -> Windows:
        """The windows of a split on the training device, with the variates that the run uses."""
        self.setup()
        assert self.splits is not None
        windows = self.splits[split]
        if self.variates is not None and split != "test":
            windows = windows.columns(slice(self.first_variate, self.first_variate + self.variates))
        return windows.to(self.attached.strategy.root_device)

    def train_dataloader(self) -> DataLoader:
        windows, size = self.windows("train"), self.batch_size
        return self.shuffled(windows, size, drop_last=self.drop_last, collate_fn=_whole)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        if self.splits is not None and self.splits.val is None:
            return []
        return self.in_order(self.windows("val"), BLOCK, collate_fn=_whole)

    def test_dataloader(self) -> DataLoader:
        return self.in_order(self.windows("test"), BLOCK, collate_fn=_whole)


class ForecastModule(LightningModule):
    """Trains any forecaster ``model(x, marks) -> [batch, horizon, variates]`` as the field does.

    Mean squared error on the targets, Adam, a learning rate per epoch, and early stopping on
    ``val_mse``, the exact error over every validation window. Tests log all errors.

    Args:
        model: the network.
        lr: Adam's first learning rate.
        schedule: ``type1`` (halved each epoch), ``type2``, ``type3``, ``cosine`` or ``constant``;
            see :func:`forecasting_kit.learning_rate`.
        patience: epochs without improvement before stopping; ``null`` never stops early.
        variates_per_batch: train each batch on a fresh random subset of so many variates
            ("efficient training").
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 1e-4,
        schedule: str = "type1",
        patience: int | None = 3,
        variates_per_batch: int | None = None,
    ) -> None:
        super().__init__()
        learning_rate(schedule, 0, lr, 1)
        self.model, self.lr, self.schedule = model, lr, schedule
        self.patience, self.variates_per_batch = patience, variates_per_batch
        self.errors: ForecastErrors | None = None

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        return self.model(x, marks)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = training_loss(self.model, batch, self.variates_per_batch)
        self.log("train_mse", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=1)
        return loss

    def configure_callbacks(self) -> list[Callback]:
        if self.patience is None:
            return []
        return [EarlyStopping("val_mse", patience=self.patience, mode="min")]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr)
        epochs = self.trainer.max_epochs or 1

        def factor(epoch: int) -> float:
            return learning_rate(self.schedule, epoch, self.lr, epochs) / self.lr

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def validation_step(self, batch: Batch, index: int) -> None:
        if self.errors is None:
            self.errors = ForecastErrors(*batch.y.shape[1:]).to(self.device)
        self.errors.update(run(self.model, batch), batch.y)

    def test_step(self, batch: Batch, index: int) -> None:
        self.validation_step(batch, index)

    def on_validation_epoch_end(self) -> None:
        errors = self._total()
        self.log_dict({"val_mse": errors.mse, "val_mae": errors.mae}, prog_bar=True)

    def on_test_epoch_end(self) -> None:
        errors = self._total()
        values = {f"test_{name}": getattr(errors, name) for name in (*METRICS, "median_mse")}
        self.log_dict(values)

    def _total(self) -> Errors:
        """The errors of all processes since the last call."""
        if self.errors is None:
            raise ValueError("no windows to take the errors of")
        total = Errors.of(self.errors.compute())
        self.errors = None
        return total


def _whole(batch: Batch) -> Batch:
    return batch
