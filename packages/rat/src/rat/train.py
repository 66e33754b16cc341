"""Train on one device or many: ``python -m rat.train fit --config NAME``."""

from collections.abc import Sequence
from typing import Any

import torch
from attention_core.training import DataModule
from attention_core.training import main as train
from image_restoration_kit.metrics import psnr, quantise
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rat.data import DRAWN, DrawnSlices, PairedSlices, Sample, scores
from rat.losses import FocalRegionLoss
from rat.model import RAT, RATConfig


class Training(LightningModule):
    """Focal region loss under Adam, the rate falling along a cosine.

    Args:
        network: sizes of the network.
        start: weights to start from: a file of the authors' or a saved folder.
        beta: of the loss; 0 makes it plain L1.
        lr: rate at the start.
        last_lr: rate at the end.
        betas: of Adam.
        steps: over which the rate falls.
    """

    def __init__(
        self,
        network: RATConfig,
        *,
        start: str | None = None,
        beta: float = 1e-3,
        lr: float = 2e-4,
        last_lr: float = 1e-6,
        betas: tuple[float, float] = (0.5, 0.999),
        steps: int = 200_000,
    ) -> None:
        super().__init__()
        self.model = RAT(network) if start is None else RAT.load(start)
        if self.model.config != network:
            raise ValueError(
                f"the weights to start from are of {self.model.config}, not of {network}"
            )
        self.loss = FocalRegionLoss(beta)
        self.lr, self.last_lr, self.betas, self.steps = lr, last_lr, betas, steps

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        degraded, clean, regions = batch
        loss = self.loss(self.model(degraded, regions), clean, regions)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        degraded, clean, regions = batch
        out, truth = quantise(self.model(degraded, regions).float()), quantise(clean)
        self._report({"val_psnr": psnr(out, truth, on_luma=False)}, len(clean))

    def test_step(self, batch: Sequence[Tensor], index: int) -> None:
        degraded, clean, regions = batch
        out = self.model(degraded, regions).float()
        self._report({f"test_{k}": v for k, v in scores(out, clean).items()}, len(clean))

    def _report(self, values: dict[str, float], batch: int) -> None:
        self.log_dict(values, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.model.parameters(), self.lr, self.betas)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps, self.last_lr)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class SliceData(DataModule):
    """Training and test slices of a root folder; arguments as in :class:`PairedSlices`.

    Args:
        root: the folder, or ``drawn``.
        regions: folder of maps, or method.
        scale: of the network.
        channels: of the network.
        patch: side of the training squares; whole slices by default.
        batch_size: slices per process and step.
        samples: slices in an epoch over all processes; one each by default.
        augment: turn training slices.
        workers: processes that load data.
    """

    def __init__(
        self,
        root: str,
        *,
        regions: str = "qd_seg_123456",
        scale: int = 1,
        channels: int = 1,
        patch: int | None = None,
        batch_size: int = 8,
        samples: int | None = None,
        augment: bool = True,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.regions, self.batch_size, self.workers = root, regions, batch_size, workers
        self.shape: dict[str, Any] = {"scale": scale, "channels": channels}
        self.drawing = {"patch": patch, "augment": augment}
        self.samples = samples

    def train_dataloader(self) -> DataLoader:
        return self.shuffled(self._data("train", **self.drawing), self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return self.in_order(self._data("test"))

    test_dataloader = val_dataloader

    def _data(self, split: str, **drawing: Any) -> Dataset[Sample]:
        if self.root == DRAWN:
            count = (self.samples or 8) if split == "train" else 2
            return DrawnSlices(count, **self.shape, **drawing)
        samples = self.samples if split == "train" else None
        return PairedSlices(
            self.root, split, regions=self.regions, samples=samples, **self.shape, **drawing
        )


def main() -> None:
    train(Training, SliceData, package="rat", monitor="val_psnr", mode="max")


if __name__ == "__main__":
    main()
