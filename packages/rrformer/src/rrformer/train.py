"""Train on one device or many: ``python -m rrformer.train fit --config NAME``."""

from collections.abc import Sequence
from typing import Any

import torch
from attention_core.training import DataModule
from attention_core.training import main as train
from image_restoration_kit.enlarge import Tiling, enlarge
from image_restoration_kit.metrics import psnr, quantise, ssim
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rrformer.data import UHDRR, Reflections, uhdrr_pairs
from rrformer.features import VGG19
from rrformer.losses import Discriminator, feature_loss, pixel_loss, relative_loss
from rrformer.model import RRFormer, RRFormerConfig


class Training(LightningModule):
    """Pixels, features of VGG-19 and, from an epoch on, a discriminator, each under Adam.

    Args:
        network: sizes of the network.
        vgg: torchvision's VGG-19 file; needed for the hypercolumn and the feature loss.
        lr: of both networks.
        feature_weight: of the feature loss.
        gan_weight: of the adversarial loss.
        gan_epoch: the epoch in which it starts.
        tile: tiles of this size in evaluation; whole images by default.

    Raises:
        ValueError: when VGG-19 is needed and not told.
    """

    def __init__(
        self,
        network: RRFormerConfig,
        vgg: str | None = None,
        *,
        lr: float = 2e-4,
        feature_weight: float = 0.1,
        gan_weight: float = 0.01,
        gan_epoch: int = 20,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        if vgg is None and (network.hypercolumn or feature_weight):
            raise ValueError(
                "vgg=None: the hypercolumn and the feature loss need torchvision's "
                "vgg19-dcbb9e9d.pth; without it set hypercolumn=false and feature_weight=0"
            )
        self.automatic_optimization = False
        self.model = RRFormer(network)
        if self.model.embedding.vgg is not None and vgg is not None:
            self.model.embedding.vgg.load(vgg)
        self.vgg = VGG19() if feature_weight else None
        if self.vgg is not None and vgg is not None:
            self.vgg.load(vgg)
        self.discriminator = Discriminator() if gan_weight else None
        self.lr, self.feature_weight = lr, feature_weight
        self.gan_weight, self.gan_epoch = gan_weight, gan_epoch
        self.tiling = None if tile is None else Tiling(tile=tile)

    def training_step(self, batch: Sequence[Tensor], index: int) -> None:
        blended, truth = batch
        optimizers: Any = self.optimizers()
        ours, judges = optimizers if isinstance(optimizers, list) else (optimizers, None)
        output = self.model(blended)
        loss = pixel_loss(output, truth)
        if self.vgg is not None:
            loss = loss + self.feature_weight * feature_loss(self.vgg, output, truth)
        judge = self.discriminator if self.current_epoch >= self.gan_epoch else None
        if judge is not None:
            self.toggle_optimizer(ours)
            adversarial = relative_loss(judge(truth), judge(output), generator=True)
            loss = loss + self.gan_weight * adversarial
            self.untoggle_optimizer(ours)
        ours.zero_grad()
        self.manual_backward(loss)
        ours.step()
        self.log("train_loss", loss.detach(), prog_bar=True)
        if judge is not None and judges is not None:
            judged = relative_loss(judge(truth), judge(output.detach()), generator=False)
            judges.zero_grad()
            self.manual_backward(judged)
            judges.step()
            self.log("discriminator_loss", judged.detach())

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Sequence[Tensor]) -> None:
        blended, truth = batch
        out = quantise(enlarge(self.model, blended, tiling=self.tiling).float())
        target = quantise(truth).cpu()
        values = {f"{stage}_psnr": psnr(out, target, on_luma=False)}
        if stage == "test":
            values["test_ssim"] = ssim(out, target, on_luma=False)
        self.log_dict(values, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=len(out))

    def configure_optimizers(self) -> Any:
        learning = [p for p in self.model.parameters() if p.requires_grad]
        optimizers = [torch.optim.Adam(learning, self.lr)]
        if self.discriminator is not None:
            optimizers.append(torch.optim.Adam(self.discriminator.parameters(), self.lr))
        return optimizers


class ReflectionData(DataModule):
    """UHDRR's pairs, or reflections put on photographs.

    Args:
        root: of UHDRR; or ``None`` to put reflections on ``photographs``.
        size: ``4k`` or ``8k``.
        photographs: a folder of them, or ``drawn``.
        held_out: those to validate and test on.
        crop: side of the training crops.
        samples: pairs per epoch of ``photographs``.
        batch_size: crops per process and step.
        workers: processes that load data.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        size: str = "4k",
        photographs: str | None = None,
        held_out: str | None = None,
        crop: int = 256,
        samples: int | None = None,
        batch_size: int = 1,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if (root is None) == (photographs is None):
            raise ValueError(f"root={root!r}, photographs={photographs!r}: give one of them")
        self.root, self.size, self.photographs = root, size, photographs
        self.held_out, self.crop, self.samples = held_out, crop, samples
        self.batch_size, self.workers = batch_size, workers

    def train_dataloader(self) -> DataLoader:
        return self.shuffled(self._training(), self.batch_size)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self._whole() if self.root or self.held_out else []

    def test_dataloader(self) -> DataLoader:
        return self._whole()

    def _training(self) -> Dataset:
        if self.root is not None:
            return UHDRR(uhdrr_pairs(self.root, self.size, "train"), self.crop)
        assert self.photographs is not None
        return Reflections(self.photographs, self.crop, self.samples)

    def _whole(self) -> DataLoader:
        if self.root is not None:
            data: Any = UHDRR(uhdrr_pairs(self.root, self.size, "test"))
        elif self.held_out is not None:
            data = Reflections(self.held_out, self.crop, fixed=True)
        else:
            raise ValueError("no test images: set --data.root or --data.held_out")
        return self.in_order(data)


def main() -> None:
    train(Training, ReflectionData, package="rrformer", monitor="val_psnr", mode="max")


if __name__ == "__main__":
    main()
