"""Train on one device or many: ``python -m rrt_mil.train fit --config NAME``."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from attention_core.training import DataModule
from attention_core.training import main as train
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import CatMetric

from rrt_mil import survival
from rrt_mil.data import Batch, Sample, TableBags, TensorBags, collate
from rrt_mil.metrics import classification_metrics, concordance_index
from rrt_mil.model import R2TMIL, R2TMILConfig
from rrt_mil.prototypes import read_prototypes
from rrt_mil.simulate import TASKS, symbol_pool
from rrt_mil.tables import folds, hold_out, read_table

LOSSES = {"nll": survival.nll_loss, "ce": survival.ce_loss}


class BagData(DataModule):
    """One fold of a folder of features with a label file.

    Args:
        features: the folder; without one, simulated bags whose label asks for context.
        labels: the CSV; see :func:`rrt_mil.tables.read_table`.
        classes: names of the labels, in the order of the classes.
        fold: which fold is the test part.
        folds: how many there are.
        split_seed: of the folds; the authors' is 2021 for classification, 1 for survival.
        val_share: of each class's training patients to choose the best epoch by. With 0, as in the
            published runs, the test part itself is validated on, which favours the model.
        batch_size: bags per step and process; 1 in the published runs.
        workers: processes that read bags.
        keep: hold the bags in memory.
        drop_invalid: leave out instances with NaN or infinity instead of refusing the bag.
        skip_missing: leave out slides without features instead of refusing the table.
        width: of the features, where it must be checked.
    """

    def __init__(
        self,
        features: str | None = None,
        labels: str | None = None,
        classes: list[str] | None = None,
        fold: int = 0,
        folds: int = 5,
        split_seed: int = 2021,
        val_share: float = 0.0,
        batch_size: int = 1,
        workers: int = 0,
        keep: bool = False,
        drop_invalid: bool = False,
        skip_missing: bool = False,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if (features is None) != (labels is None):
            raise ValueError("features and labels go together: a folder and its CSV, or neither")
        if not 0 <= fold < folds:
            raise ValueError(f"fold={fold}: must be 0 to {folds - 1}")
        if not 0 <= val_share < 1:
            raise ValueError(f"val_share={val_share}: must be in [0, 1)")
        self.features, self.labels, self.classes = features, labels, classes
        self.fold, self.folds, self.split_seed = fold, folds, split_seed
        self.val_share, self.skip_missing = val_share, skip_missing
        self.batch_size, self.workers = batch_size, workers
        self.reading: dict[str, Any] = {"width": width, "drop_invalid": drop_invalid, "keep": keep}
        self.parts: dict[str, Dataset[Sample]] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.parts:
            return
        if self.features is None or self.labels is None:
            pool = symbol_pool()
            for part, count, seed in (("train", 64, 1), ("test", 32, 2)):
                self.parts[part] = TensorBags(*TASKS["context"](pool, count, 64, seed))
            self.parts["val"] = self.parts["test"]
            return
        table = read_table(
            self.labels, self.features, classes=self.classes, skip_missing=self.skip_missing
        )
        known, test = folds(table, self.folds, self.split_seed)[self.fold]
        val = test
        if self.val_share:
            known, val = hold_out(known, self.val_share, self.split_seed)
        tables = {"train": known, "val": val, "test": test}
        self.parts = {part: TableBags(t, **self.reading) for part, t in tables.items()}

    def train_dataloader(self) -> DataLoader:
        return self.shuffled(self.parts["train"], self.batch_size, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return self.in_order(self.parts["val"], collate_fn=collate)

    def test_dataloader(self) -> DataLoader:
        return self.in_order(self.parts["test"], collate_fn=collate)


class Training(LightningModule):
    """Adam on one bag at a time, its rate falling to 0 by a cosine over the epochs.

    Args:
        network: sizes of the classifier.
        task: ``classification`` or ``survival``.
        lr: first learning rate.
        weight_decay: of Adam.
        survival_loss: ``nll`` or ``ce``.
        alpha: of it; see :func:`rrt_mil.survival.nll_loss`.
        macro_f1: report F1 as the mean over both classes (the paper's TCGA figures).
        confounders: of IBMIL, a ``.npy`` file of prototypes.
    """

    def __init__(
        self,
        network: R2TMILConfig,
        task: str = "classification",
        lr: float = 2e-4,
        weight_decay: float = 1e-5,
        survival_loss: str = "nll",
        alpha: float = 0.0,
        macro_f1: bool = False,
        confounders: str | None = None,
    ) -> None:
        super().__init__()
        if task not in ("classification", "survival"):
            raise ValueError(f"task={task!r}: must be 'classification' or 'survival'")
        if survival_loss not in LOSSES:
            raise ValueError(f"survival_loss={survival_loss!r}: must be one of {', '.join(LOSSES)}")
        if (confounders is None) == (network.aggregator == "ibmil"):
            raise ValueError(f"confounders={confounders!r}: ibmil needs a file, the others none")
        if confounders is not None:
            prototypes = read_prototypes(confounders, network.dim)
            network = replace(network, confounders=len(prototypes))
        self.model = R2TMIL(network)
        if confounders is not None:
            self.model.aggregator.confounders.copy_(prototypes)
        self.task, self.lr, self.weight_decay = task, lr, weight_decay
        self.survival_loss, self.alpha, self.macro_f1 = survival_loss, alpha, macro_f1
        self.seen = CatMetric()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.model(x, mask)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = self.loss(batch)
        size = len(batch.labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """What the aggregator is trained with, on bags of the task."""
        if self.task == "classification":
            return self.model.loss(batch.x, batch.labels, batch.mask)
        censored = (~batch.observed).to(batch.x.dtype)
        criterion = partial(LOSSES[self.survival_loss], censored=censored, alpha=self.alpha)
        return self.model.loss(batch.x, batch.labels, batch.mask, criterion)

    def validation_step(self, batch: Batch, index: int) -> None:
        logits = self.model(batch.x, batch.mask).double()
        truth = torch.stack([batch.labels, batch.times, batch.observed], 1)
        self.seen.update(torch.cat([logits, truth], 1))

    def test_step(self, batch: Batch, index: int) -> None:
        self.validation_step(batch, index)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, part: str) -> None:
        """Log the scores of all processes' bags; ``val_score`` is what the best epoch is by."""
        rows = torch.as_tensor(self.seen.compute()).cpu()
        self.seen.reset()
        found = scores(rows[:, :-3], rows[:, -3:], self.task, macro=self.macro_f1)
        self.log_dict({f"{part}_{name}": torch.tensor(value) for name, value in found.items()})
        main_score = torch.tensor(found["auc" if self.task == "classification" else "c_index"])
        self.log(f"{part}_score", main_score, prog_bar=True)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self.lr, weight_decay=self.weight_decay)
        epochs = self.trainer.max_epochs or 1
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "epoch"}}


class PatientStopping(EarlyStopping):
    """Stops ``patience`` epochs after the best one, but not before epoch ``start``.

    Args:
        patience: epochs without a better ``val_score``.
        start: the first epoch that may be the last.
    """

    def __init__(self, patience: int = 30, start: int = 130) -> None:
        super().__init__("val_score", patience=patience, mode="max")
        self.start = start

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_validation_end(trainer, module)
        if trainer.current_epoch <= self.start:
            trainer.should_stop = False


def scores(logits: Tensor, truth: Tensor, task: str, *, macro: bool = False) -> dict[str, float]:
    """Metrics of bags: ``truth`` holds label, time and whether the event was observed.

    Where a metric is undefined (one class only), it is what chance gives.
    """
    if task == "survival":
        risks = survival.risk(logits).numpy()
        try:
            return {"c_index": concordance_index(truth[:, 1].numpy(), truth[:, 2].numpy(), risks)}
        except ValueError:
            return {"c_index": 0.5}
    try:
        found = classification_metrics(
            truth[:, 0].long().numpy(), logits.softmax(-1).numpy(), macro=macro
        )
    except ValueError:
        return {"auc": 0.5}
    return {name: value for name, value in found.items() if name != "threshold"}


def main(args: Sequence[str] | None = None) -> Any:
    return train(Training, BagData, package="rrt_mil", monitor="val_score", mode="max", args=args)


if __name__ == "__main__":
    main()
