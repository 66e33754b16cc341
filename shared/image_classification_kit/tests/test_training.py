"""The recipe: mixing, averages, schedule, repeated augmentation."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from image_classification_kit import Preprocessing
from image_classification_kit.training import (
    ClassificationModule,
    ImageData,
    RepeatedBatches,
    posterize,
    smooth,
    training_transform,
)
from lightning.pytorch import Trainer, seed_everything
from PIL import Image

from .conftest import Tiny, TinyConfig


def trainer(tmp_path, **options) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
        "default_root_dir": tmp_path,
    }
    return Trainer(**{**defaults, **options})


def data(**options) -> ImageData:
    return ImageData("shapes", **{"size": 16, "batch_size": 32, "crop": 1.0, **options})


def test_mixed_targets_are_the_formula() -> None:
    """One lambda a batch, partner the flipped batch, targets smoothed."""
    module = ClassificationModule(Tiny(TinyConfig()), mixup=0.8, cutmix=0.0, ema=None)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    mixed, targets = module.mix(images.clone(), labels)
    lam = (targets[0, 0] - 0.025) / 0.9
    expected = lam * smooth(labels, 4, 0.1) + (1 - lam) * smooth(labels.flip(0), 4, 0.1)
    assert torch.allclose(targets.float(), expected, atol=1e-5)
    assert torch.allclose(mixed, lam * images + (1 - lam) * images.flip(0), atol=1e-4)
    assert torch.allclose(smooth(labels, 4, 0.1).sum(1), torch.ones(4))


def test_loss_is_soft_target_cross_entropy(model) -> None:
    module = ClassificationModule(model, ema=None)
    images, targets = torch.randn(3, 3, 16, 16), torch.rand(3, 4).softmax(-1)
    expected = -(targets * model(images).log_softmax(-1)).sum(-1).mean()
    assert torch.isclose(module.loss(images, targets), expected)


def test_training_averages_exports_and_logs(tmp_path) -> None:
    seed_everything(0)
    module = ClassificationModule(Tiny(TinyConfig()), lr=0.01, lr_batch=None, ema=0.5)
    run = trainer(tmp_path, max_epochs=2, limit_train_batches=2)
    run.fit(module, data(augmentation="shift"))
    assert {"val_top1", "val_top1_ema", "val_top5", "val_loss"} <= run.callback_metrics.keys()
    average = module.average.module
    assert not average.classifier.weight.equal(module.model.classifier.weight)
    again = Tiny.from_pretrained(tmp_path / "model_ema")
    assert again.classifier.weight.equal(average.classifier.weight)
    card = json.loads((tmp_path / "model_ema" / "preprocessing.json").read_text())
    assert card["classes"] == ["disc", "square", "triangle", "cross"]
    assert card["size"] == 16


def test_average_is_the_formula(tmp_path) -> None:
    module = ClassificationModule(Tiny(TinyConfig()), mixup=0, cutmix=0, ema=0.9, ema_batch=16)
    seen = [module.model.classifier.weight.detach().clone()]
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=3, limit_val_batches=0)

    def after(*_: object) -> None:
        seen.append(module.model.classifier.weight.detach().clone())

    module.on_train_batch_end = after  # type: ignore[method-assign]
    run.fit(module, data(augmentation="none"))
    decay, expected = 0.9 ** (32 / 16), seen[0]
    for weight in seen[1:]:
        expected = decay * expected + (1 - decay) * weight
    assert torch.allclose(module.average.module.classifier.weight, expected, atol=1e-6)


@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_rate_warms_up_and_falls_along_a_cosine(tmp_path, schedule: str) -> None:
    module = ClassificationModule(
        Tiny(TinyConfig()), lr=0.1, lr_batch=64, warmup_epochs=2, schedule=schedule, ema=None
    )
    rates: list[float] = []
    module.on_train_batch_start = lambda *_: rates.append(  # type: ignore[method-assign]
        module.optimizers().param_groups[0]["lr"]
    )
    run = trainer(tmp_path, max_epochs=6, limit_train_batches=2, limit_val_batches=0)
    run.fit(module, data(augmentation="none"))
    assert rates[0] == pytest.approx(1e-6)
    # 0.1 for 64 images, 32 a step; as DeiT's, the cosine begins under the warm-up: it is at 2/6.
    assert max(rates) == pytest.approx(0.05 * (1 + math.cos(math.pi / 3)) / 2, rel=1e-3)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.01
    groups = {group["weight_decay"]: group["params"] for group in module.optimizers().param_groups}
    assert {p.ndim for p in groups[0.0]} == {1}
    assert {p.ndim for p in groups[0.05]} == {2, 4}


def test_cosine_may_start_when_the_warm_up_ends(tmp_path) -> None:
    """ResFormer's: linear from 0 to the rate, then the whole cosine."""
    module = ClassificationModule(
        Tiny(TinyConfig()), lr=0.1, lr_batch=None, warmup_lr=0.0, min_lr=0.0, warmup_epochs=2,
        cosine_after_warmup=True, schedule="step", ema=None,
    )  # fmt: skip
    rates: list[float] = []
    module.on_train_batch_start = lambda *_: rates.append(  # type: ignore[method-assign]
        module.optimizers().param_groups[0]["lr"]
    )
    run = trainer(tmp_path, max_epochs=6, limit_train_batches=2, limit_val_batches=0)
    run.fit(module, data(augmentation="none"))
    warm = [0.1 * i / 4 for i in range(4)]
    assert rates == pytest.approx(
        warm + [0.1 * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]
    )


def test_repeated_augmentation_deals_copies_to_different_processes() -> None:
    seen = []
    for rank in range(3):
        batches = RepeatedBatches(9, 3, epoch=lambda: 0, rank=rank, world_size=3)
        batches.repeats = 3
        seen.append([i for batch in batches for i in batch])
    assert len(seen[0]) == 3
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0])) == 3
    with pytest.raises(ValueError, match="repeats=0: must be at least 1"):
        data(repeats=0)


def test_repeats_reach_the_loader(tmp_path) -> None:
    images = data(augmentation="none", repeats=2, batch_size=64)
    module = ClassificationModule(Tiny(TinyConfig()), ema=None)
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(module, images)
    drawn = [i for batch in images.train_dataloader().batch_sampler for i in batch]
    assert len(drawn) == 256
    assert len(set(drawn)) == 128


def test_augmentation_varies_and_keeps_the_size() -> None:
    image = Image.new("RGB", (40, 30), "teal")
    for kind, steps in (("imagenet", 64), ("imagenet", 32), ("shift", 24), ("none", 20)):
        transform = training_transform(kind, Preprocessing(size=steps))
        assert transform(image).shape == (3, steps, steps)
    noise = Image.effect_noise((40, 40), 90).convert("RGB")
    for kind in ("imagenet", "shift"):
        transform = training_transform(kind, Preprocessing(size=24))
        assert len({transform(noise).sum().item() for _ in range(6)}) > 1


def test_posterize_takes_every_magnitude() -> None:
    image = Image.new("RGB", (2, 2), (255, 130, 3))
    found = [posterize(image, bits).getpixel((0, 0)) for bits in (0, 1, 8)]
    assert found == [(0, 0, 0), (128, 128, 0), (255, 130, 3)]


def test_settings_are_checked(tmp_path, folder) -> None:
    with pytest.raises(ValueError, match="schedule='month': must be 'epoch' or 'step'"):
        ClassificationModule(Tiny(TinyConfig()), schedule="month")
    with pytest.raises(ValueError, match="augmentation='more': must be"):
        data(augmentation="more")
    with pytest.raises(RuntimeError, match="needs a trainer"):
        data().val_dataloader()
    other = ClassificationModule(Tiny(TinyConfig(classes=3)), ema=None)
    with pytest.raises(ValueError, match="3 classes apart, the data has 2: blue, red"):
        trainer(tmp_path, max_epochs=1).fit(other, ImageData(str(folder), size=16, batch_size=2))


def test_no_label_is_lost_to_float16() -> None:
    targets = smooth(torch.tensor([3]), 1000, 0.1)
    assert targets.sum().item() == pytest.approx(1)
    assert F.cross_entropy(torch.zeros(1, 1000), targets).item() == pytest.approx(6.9078, abs=1e-3)


def test_training_starts_from_other_weights_but_for_the_head(model) -> None:
    from attention_core import CheckpointError
    from image_classification_kit.training import start_from

    other = type(model)(type(model.config)(classes=7))
    head = other.classifier.weight.clone()
    start_from(other, model.state_dict(), "classifier.")
    assert other.stem[0].weight.equal(model.stem[0].weight)
    assert other.classifier.weight.equal(head)
    start_from(same := type(model)(model.config), model.state_dict(), "classifier.")
    assert same.classifier.weight.equal(model.classifier.weight)
    with pytest.raises(CheckpointError, match=r"missing: stem\.0\.bias"):
        start_from(other, {"stem.0.weight": model.stem[0].weight}, "classifier.")
