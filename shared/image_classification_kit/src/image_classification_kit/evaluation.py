"""Predictions and their accuracy, at any input size."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first."""

    classes: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Accuracy:
    """Share of images whose class is the best guess, or among the five best."""

    top1: float
    top5: float
    images: int


def class_logits(outputs: Any) -> Float[Tensor, "batch classes"]:
    """The class logits of what a network returned."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


@torch.no_grad()
def predict(
    model: nn.Module, images: Float[Tensor, "batch channels height width"], *, top: int = 5
) -> list[Prediction]:
    """The ``top`` most probable classes of each image."""
    probabilities = class_logits(model(images)).float().softmax(-1)
    best = probabilities.topk(min(top, probabilities.shape[-1]))
    return [
        Prediction(tuple(classes), tuple(values))
        for classes, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def hits(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, "batch"]
) -> tuple[Tensor, Tensor]:
    """Per image, whether its label is the best guess, and whether it is among the five best."""
    best = logits.topk(min(5, logits.shape[-1])).indices == labels[:, None]
    return best[:, 0], best.any(1)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    workers: int = 0,
    bf16: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Accuracy:
    """Accuracy of ``model``, in evaluation mode, on a data set of (image, label)."""
    device = next(model.parameters()).device
    loader = DataLoader(dataset, batch_size, num_workers=workers)
    training, first, five, count = model.training, 0, 0, 0
    model.eval()
    try:
        for images, labels in progress(loader):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = class_logits(model(images.to(device)))
            one, among = hits(logits.float().cpu(), labels)
            first, five, count = (
                first + int(one.sum()),
                five + int(among.sum()),
                count + len(labels),
            )
    finally:
        model.train(training)
    if not count:
        raise ValueError("nothing to evaluate: the data set holds no images")
    return Accuracy(first / count, five / count, count)


def at_size(model: Any, size: int) -> nn.Module:
    """``model`` for squares of ``size`` pixels a side: itself, unless positions bind its size.

    Such a network has a method ``resized`` that resamples them.
    """
    if not hasattr(model, "resized"):
        return model
    return model.resized((size, size)).to(next(model.parameters()).device)


def require_classes(model_classes: int, names: Sequence[str]) -> None:
    """Raise ``ValueError`` unless the network tells as many classes apart as the data has."""
    if model_classes != len(names):
        raise ValueError(
            f"the network tells {model_classes} classes apart, the data has {len(names)}: "
            f"{', '.join(list(names)[:5])}{', ...' if len(names) > 5 else ''}"
        )
