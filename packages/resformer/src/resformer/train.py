"""The training command: ``python -m resformer.train fit --config smoke``."""

import torch
import torch.nn.functional as F
from attention_core import training
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from resformer.data import dataset
from resformer.model import VARIANTS, Resformer


class ResformerTraining(LightningModule):
    """Cross entropy and AdamW with a cosine schedule over the epochs.

    Args:
        variant: a published variant.
        learning_rate: at the start.
        weight_decay: of AdamW.
    """

    def __init__(
        self,
        variant: str = "resformer_s",
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.model = Resformer.from_variant(variant)
        self.accuracy = MulticlassAccuracy(VARIANTS[variant].classes, average="micro")

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, labels = batch
        loss = F.cross_entropy(self.model(x), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        x, labels = batch
        logits = self.model(x)
        self.accuracy(logits, labels)
        self.log("val/loss", F.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        self.log("val/accuracy", self.accuracy, prog_bar=True)

    def test_step(self, batch: list[Tensor], index: int) -> None:
        x, labels = batch
        self.accuracy(self.model(x), labels)
        self.log("test/accuracy", self.accuracy)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        epochs = max(1, self.trainer.max_epochs or 1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class ResformerData(LightningDataModule):
    """Planted patterns, made on the fly.

    Args:
        variant: tells channels and classes.
        samples: to train on; a quarter as many to validate and to test.
        batch_size: per process.
    """

    def __init__(
        self, variant: str = "resformer_s", samples: int = 8192, batch_size: int = 64
    ) -> None:
        super().__init__()
        config = VARIANTS[variant]
        sizes = {"channels": config.channels, "classes": config.classes}
        self.batch_size = batch_size
        self.train = dataset(samples, seed=1, **sizes)
        self.validation = dataset(max(1, samples // 4), seed=2, **sizes)
        self.test = dataset(max(1, samples // 4), seed=3, **sizes)

    def train_dataloader(self) -> DataLoader:
        return training.train_loader(self.train, self._trainer, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return training.eval_loader(self.validation, self._trainer, self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return training.eval_loader(self.test, self._trainer, self.batch_size)

    @property
    def _trainer(self) -> Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module is used by a Trainer")
        return self.trainer


def main() -> None:
    training.main(ResformerTraining, ResformerData, package="resformer", monitor="val/loss")


if __name__ == "__main__":
    main()
