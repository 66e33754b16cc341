"""The DeiT recipe on timm's own pieces, as Lightning modules."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from attention_core import PaperModel, load_state, write_text
from attention_core.training import DataModule, EpochBatches, epoch_seed
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from image_classification_kit.datasets import Transform, open_images
from image_classification_kit.evaluation import class_logits, hits, require_classes
from image_classification_kit.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

SMALL = 32
"""Inputs of at most so many pixels are cropped after padding instead of resized at random."""
CARD = "preprocessing.json"
"""File beside the exported network: how its inputs were made, and its classes."""


class ClassificationModule(LightningModule):
    """Soft-target cross entropy under mixup and cutmix, AdamW, warm-up and cosine, EMA.

    The defaults are DeiT's for ImageNet. Validation tells the accuracy of the network and of its
    average; the best epoch is chosen by the network's.

    Args:
        model: the network.
        lr: highest learning rate for ``lr_batch`` images a step; it grows with the batch.
        lr_batch: ``None`` takes ``lr`` as it is.
        min_lr: at the end of the cosine.
        warmup_lr: at the start.
        warmup_epochs: of linear warm-up.
        cosine_after_warmup: start the cosine at its top when the warm-up ends, rather than have
            the warm-up cover its beginning.
        cooldown_epochs: at ``min_lr``, after the cosine.
        schedule: change the rate every ``"epoch"`` or every ``"step"``.
        weight_decay: vectors and what the network names in ``no_weight_decay`` are spared.
        mixup: alpha; 0 for none.
        cutmix: alpha; 0 for none.
        mix_probability: that a batch is mixed at all.
        smoothing: of labels.
        ema: decay of the averaged weights per step; ``None`` for none.
        ema_batch: raise ``ema`` to the power of the batch over this.
    """

    def __init__(
        self,
        model: PaperModel,
        *,
        lr: float = 5e-4,
        lr_batch: int | None = 512,
        min_lr: float = 1e-5,
        warmup_lr: float = 1e-6,
        warmup_epochs: int = 5,
        cosine_after_warmup: bool = False,
        cooldown_epochs: int = 0,
        schedule: str = "epoch",
        weight_decay: float = 0.05,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        mix_probability: float = 1.0,
        smoothing: float = 0.1,
        ema: float | None = 0.99996,
        ema_batch: int | None = None,
    ) -> None:
        super().__init__()
        if schedule not in ("epoch", "step"):
            raise ValueError(f"schedule={schedule!r}: must be 'epoch' or 'step'")
        self.model: Any = model
        self.lr, self.lr_batch, self.min_lr, self.warmup_lr = lr, lr_batch, min_lr, warmup_lr
        self.warmup_epochs, self.cooldown_epochs = warmup_epochs, cooldown_epochs
        self.schedule, self.weight_decay = schedule, weight_decay
        self.cosine_after_warmup = cosine_after_warmup
        self.smoothing, self.ema_decay, self.ema_batch = smoothing, ema, ema_batch
        self.mix: Any = None
        if mixup or cutmix:
            from timm.data import Mixup

            self.mix = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                prob=mix_probability,
                label_smoothing=smoothing,
                num_classes=model.config.classes,
            )
        self.average: Any = None
        if ema is not None:
            from timm.utils import ModelEmaV3

            self.average = ModelEmaV3(model, decay=ema)

    # -- training ------------------------------------------------------------------------------

    def loss(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b classes"]
    ) -> Float[Tensor, ""]:
        """Mean of -sum t log softmax(x); a paper with more outputs overrides it."""
        return self.loss_of(self.model(images), targets)

    @staticmethod
    def loss_of(outputs: Any, targets: Float[Tensor, "b classes"]) -> Float[Tensor, ""]:
        """The loss of what the network returned."""
        return F.cross_entropy(class_logits(outputs), targets)

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        images, labels = batch
        if self.mix is not None and len(images) > 1:
            images, targets = self.mix(images, labels)
        else:
            targets = smooth(labels, self.model.config.classes, self.smoothing)
        loss = self.loss(images, targets.to(images.dtype))
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        np.random.seed(epoch_seed("mix", self.current_epoch) % 2**32)  # noqa: NPY002 -- timm draws

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self.model)

    def configure_optimizers(self) -> Any:
        from timm.optim import param_groups_weight_decay
        from timm.scheduler import CosineLRScheduler

        batch = self._batch_size()
        if self.average is not None and self.ema_decay and self.ema_batch:
            self.average.decay = self.ema_decay ** (batch / self.ema_batch)
        lr = self.lr * batch / self.lr_batch if self.lr_batch else self.lr
        spared = tuple(getattr(self.model, "no_weight_decay", tuple)())
        groups: Any = param_groups_weight_decay(
            self.model, self.weight_decay, no_weight_decay_list=spared
        )
        optimizer = torch.optim.AdamW(groups, lr)
        by_epoch = self.schedule == "epoch"
        epochs = max(1, self.trainer.max_epochs or 1)
        unit = 1 if by_epoch else max(1, int(self.trainer.estimated_stepping_batches) // epochs)
        self.unit = unit
        warmup, cosine = min(self.warmup_epochs, epochs - 1), epochs - self.cooldown_epochs
        schedule = CosineLRScheduler(
            optimizer,
            t_initial=max(1, cosine - warmup * self.cosine_after_warmup) * unit,
            lr_min=self.min_lr,
            warmup_t=warmup * unit,
            warmup_prefix=self.cosine_after_warmup,
            warmup_lr_init=self.warmup_lr,
            t_in_epochs=by_epoch,
        )
        return [optimizer], [{"scheduler": schedule, "interval": "epoch" if by_epoch else "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.schedule == "epoch":
            scheduler.step(self.current_epoch + 1)
        else:
            scheduler.step_update(self.global_step)

    def _batch_size(self) -> int:
        """Images per step of the optimiser, over all processes."""
        data: Any = getattr(self.trainer, "datamodule", None)
        size = getattr(data, "batch_size", 1)
        return size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    # -- evaluation ----------------------------------------------------------------------------

    def validation_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Sequence[Tensor], index: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Sequence[Tensor]) -> None:
        images, labels = batch
        networks = {"": self.model}
        if self.average is not None:
            networks["_ema"] = self.average.module
        for name, network in networks.items():
            logits = class_logits(network(images)).float()
            first, five = hits(logits, labels)
            values = {
                f"{stage}_top1{name}": first.float().mean(),
                f"{stage}_top5{name}": five.float().mean(),
                f"{stage}_loss{name}": F.cross_entropy(logits, labels),
            }
            self.log_dict(
                values, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=len(labels)
            )

    # -- export --------------------------------------------------------------------------------

    def on_fit_end(self) -> None:
        """Beside the exported network: how inputs are made, and the averaged network."""
        data: Any = getattr(self.trainer, "datamodule", None)
        run = Path(self.trainer.default_root_dir)
        if not (self.trainer.is_global_zero and isinstance(data, ImageData)):
            return
        if self.average is not None:
            self.average.module.save_pretrained(run / "model_ema")
        for folder in (run / "model", run / "model_ema"):
            if folder.is_dir():
                card = {**asdict(data.preprocessing), "classes": data.classes}
                write_text(folder / CARD, json.dumps(card, indent=1))


def start_from(model: PaperModel, state: Mapping[str, Tensor], *heads: str) -> None:
    """Load everything but class heads of another shape, which stay fresh.

    Args:
        model: the network.
        state: entries under its names.
        heads: prefixes of the class heads, such as ``"classifier."``.

    Raises:
        CheckpointError: when anything else is missing or does not fit.
    """
    own = model.state_dict()
    fresh = {key: value for key, value in own.items() if key.startswith(heads)}
    kept = {
        key: value
        for key, value in state.items()
        if not key.startswith(heads) or (key in fresh and fresh[key].shape == value.shape)
    }
    load_state(model, {**fresh, **kept})


class ImageData(DataModule):
    """Folders of images by class, or a packaged data set, with the recipe's augmentation.

    Args:
        data: a folder with ``train/CLASS/*`` and ``val/CLASS/*``, or a name in ``PACKAGED``.
        size: side of the network's input.
        batch_size: images per process and step; even where mixup is on.
        augmentation: ``"imagenet"`` (random resized crop, flip, RandAugment, erasing), ``"shift"``
            (by up to a twelfth, for digits) or ``"none"``.
        crop: share of the resized short side that evaluation sees.
        mean: of each channel; one entry makes grey images.
        std: likewise.
        repeats: copies of each image in an epoch, over all processes (repeated augmentation);
            an epoch is as long as without.
        val_batch_size: of evaluation; that of training by default.
        workers: processes that load images.
    """

    def __init__(
        self,
        data: str,
        *,
        size: int = 224,
        batch_size: int = 128,
        augmentation: str = "imagenet",
        crop: float = 0.875,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        repeats: int = 1,
        val_batch_size: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if augmentation not in ("imagenet", "shift", "none"):
            raise ValueError(
                f"augmentation={augmentation!r}: must be 'imagenet', 'shift' or 'none'"
            )
        if repeats < 1:
            raise ValueError(f"repeats={repeats}: must be at least 1")
        self.preprocessing = Preprocessing(size=size, crop=crop, mean=tuple(mean), std=tuple(std))
        self.data, self.size, self.batch_size = data, size, batch_size
        self.augmentation, self.repeats, self.workers = augmentation, repeats, workers
        self.val_batch_size = val_batch_size or batch_size
        self.classes: list[str] = []

    def train_transform(self) -> Any:
        """From a picture to what training sees of it; a paper with several views overrides it."""
        return training_transform(self.augmentation, self.preprocessing)

    def train_dataloader(self) -> DataLoader:
        dataset = self._open("train", self.train_transform())
        loader = self.shuffled(dataset, self.batch_size, drop_last=True)
        if self.repeats == 1:
            return loader
        batches = RepeatedBatches.of(loader.batch_sampler, self.repeats)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            generator=batches.generator,
            worker_init_fn=loader.worker_init_fn,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        dataset = self._open("val", self.preprocessing)
        return self.in_order(dataset, self.val_batch_size)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def _open(self, split: str, transform: Transform) -> Any:
        dataset = open_images(self.data, split, transform)
        network: Any = self.attached.lightning_module.model
        require_classes(network.config.classes, dataset.classes)
        self.classes = dataset.classes
        return dataset


class RepeatedBatches(EpochBatches):
    """Repeated augmentation: each image several times an epoch, its copies on several processes.

    An epoch has as many batches as without: it sees fewer images, each more often.
    """

    repeats = 1

    @classmethod
    def of(cls, batches: Any, repeats: int) -> "RepeatedBatches":
        """The same epochs with ``repeats`` copies."""
        made = cls(
            batches.length,
            batches.batch_size,
            epoch=batches.epoch,
            drop_last=batches.drop_last,
            rank=batches.rank,
            world_size=batches.world_size,
        )
        made.repeats = repeats
        return made

    def indices(self) -> list[int]:
        order = torch.randperm(self.length, generator=self.generator)
        dealt = order.repeat_interleave(self.repeats)[self.rank :: self.world_size]
        return dealt[: -(-self.length // self.world_size)].tolist()


def training_transform(augmentation: str, preprocessing: Preprocessing) -> Transform:
    """A picture, differently each time, as the network takes it."""
    if augmentation == "none":
        return preprocessing
    size = preprocessing.size or 224
    if augmentation == "shift":
        return Shift(preprocessing, max(1, size // 12))
    from timm.data import create_transform
    from torchvision.transforms import Compose, RandomCrop

    transform: Any = create_transform(
        input_size=size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    for op in (op for step in transform.transforms for op in getattr(step, "ops", [])):
        if op.name.startswith("Posterize"):
            op.aug_fn = posterize
    if size <= SMALL:
        transform = Compose([RandomCrop(size, padding=4), *transform.transforms[1:]])
    return transform


def posterize(image: Any, bits: int, **_: Any) -> Any:
    """Keep the upper ``bits`` of each channel.

    RandAugment's magnitude may leave none: black, as Pillow made it before it began to refuse.
    """
    from PIL import Image, ImageOps

    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits >= 1 else Image.new(image.mode, image.size)


class Shift:
    """The evaluation's picture, moved by up to ``most`` pixels; what enters repeats the border."""

    def __init__(self, preprocessing: Preprocessing, most: int) -> None:
        self.preprocessing, self.most = preprocessing, most

    def __call__(self, image: Any) -> Float[Tensor, "c h w"]:
        x, most = self.preprocessing(image), self.most
        padded = F.pad(x[None], (most,) * 4, mode="replicate")[0]
        top, left = random.randint(0, 2 * most), random.randint(0, 2 * most)
        return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def smooth(labels: Int[Tensor, "b"], classes: int, smoothing: float) -> Float[Tensor, "b classes"]:
    """One-hot labels with ``smoothing`` spread evenly over all classes."""
    return F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
