"""The field's training loop as Lightning modules: L1, Adam, halvings, PSNR on luma."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import PaperModel
from attention_core.training import DataModule
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from image_restoration_kit.data import PairedImages, Spoil
from image_restoration_kit.enlarge import Tiling, enlarge
from image_restoration_kit.metrics import psnr, quantise, ssim


class SuperResolutionModule(LightningModule):
    """L1 under Adam without weight decay; the rate is multiplied by ``gamma`` at ``milestones``.

    An average of the weights is a callback: ``EMAWeightAveraging`` in the configuration.

    Args:
        model: the network.
        start: weights to start from, a file of the authors' or a saved folder; those of another
            shape (the upsampling of another scale) stay as drawn.
        lr: rate at the start.
        betas: of Adam.
        milestones: iterations.
        gamma: what the rate is multiplied by.
        tile: tiles of this size in evaluation; whole images by default.
    """

    def __init__(
        self,
        model: PaperModel,
        *,
        start: str | None = None,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        milestones: Sequence[int] = (250_000, 400_000, 450_000, 475_000),
        gamma: float = 0.5,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        if start is not None:
            start_from(model, type(model).load(start))
        self.model: Any = model
        self.lr, self.betas, self.milestones, self.gamma = lr, betas, list(milestones), gamma
        self.tiling = None if tile is None else Tiling(tile=tile)

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        low, high = batch
        loss = F.l1_loss(self.model(low), high)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Sequence[Tensor]) -> None:
        low, high = batch
        if high.shape[-2:] != tuple(side * self.model.scale for side in low.shape[-2:]):
            raise ValueError(
                f"the data is for another scale: {list(low.shape[-2:])} and "
                f"{list(high.shape[-2:])}, the network enlarges {self.model.scale} times"
            )
        out = quantise(enlarge(self.model, low, tiling=self.tiling).float())
        truth, border = quantise(high).cpu(), self.model.scale if self.model.scale > 1 else 0
        options = {"on_epoch": True, "sync_dist": True, "batch_size": len(low)}
        values = {f"{stage}_psnr": psnr(out, truth, border=border)}
        if stage == "test":
            values["test_ssim"] = ssim(out, truth, border=border)
        self.log_dict(values, prog_bar=True, **options)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.model.parameters(), self.lr, self.betas)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, self.milestones, self.gamma)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def start_from(model: PaperModel, start: PaperModel, *, body: str = "groups.") -> None:
    """Give ``model`` the weights of ``start``; those of another shape stay as drawn.

    Args:
        model: to be trained.
        start: trained, perhaps at another scale.
        body: what the names of the weights begin with that must all be there.

    Raises:
        ValueError: when the bodies are not the same.
    """
    own, given = model.state_dict(), start.state_dict()
    fitting = {
        key: value for key, value in given.items() if key in own and own[key].shape == value.shape
    }
    if any(key.startswith(body) for key in (own.keys() | given.keys()) - fitting.keys()):
        raise ValueError(
            f"the body of the weights to start from, {start.config}, is not that of {model.config}"
        )
    model.load_state_dict(fitting, strict=False)


class SuperResolutionData(DataModule):
    """Patches for training and whole images for evaluation; paths as ``PairedImages`` takes them.

    Args:
        hr: high-resolution training images: a folder, an LMDB, or ``drawn``.
        lr: low-resolution ones; made by bicubic shrinking by default.
        scale: of the network.
        patch: side of a low-resolution patch.
        batch_size: patches per process and step.
        samples: patches in an epoch over all processes; one per image by default.
        augment: flip and transpose.
        template: name of an LR file for an HR stem, such as ``{}x{scale}``.
        meta_info: text file that lists the training images.
        val_hr: validation images; none by default.
        val_lr: their low-resolution side.
        test_hr: test images; the validation's by default.
        test_lr: their low-resolution side.
        noise: standard deviation of Gaussian noise put on the low-resolution side, of 255.
        jpeg: quality of the JPEG compression that it goes through.
        workers: processes that load data.
    """

    def __init__(
        self,
        hr: str,
        lr: str | None = None,
        *,
        scale: int,
        patch: int = 64,
        batch_size: int = 4,
        samples: int | None = None,
        augment: bool = True,
        template: str | None = None,
        meta_info: str | None = None,
        val_hr: str | None = None,
        val_lr: str | None = None,
        test_hr: str | None = None,
        test_lr: str | None = None,
        noise: float = 0.0,
        jpeg: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.spoil = Spoil(noise=noise, jpeg=jpeg)
        self.training = {"hr": hr, "lr": lr, "template": template, "meta_info": meta_info}
        self.scale, self.patch, self.batch_size = scale, patch, batch_size
        self.samples, self.augment, self.workers = samples, augment, workers
        self.validation = {"hr": val_hr, "lr": val_lr}
        self.test = {"hr": test_hr, "lr": test_lr} if test_hr else self.validation

    def train_dataloader(self) -> DataLoader:
        dataset = PairedImages(
            **self.training,  # type: ignore[arg-type]
            scale=self.scale,
            patch=self.patch,
            augment=self.augment,
            samples=self.samples,
            spoil=self.spoil,
        )
        return self.shuffled(dataset, self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self._whole(self.validation) if self.validation["hr"] else []

    def test_dataloader(self) -> DataLoader:
        if not self.test["hr"]:
            raise ValueError("no test images: set --data.test_hr")
        return self._whole(self.test)

    def _whole(self, places: dict[str, str | None]) -> DataLoader:
        dataset = PairedImages(**places, scale=self.scale, spoil=self.spoil)  # type: ignore[arg-type]
        return self.in_order(dataset)
