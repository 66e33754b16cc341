"""A short, exactly repeatable training for claims and tests, and the baseline it must beat."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from image_classification_kit.evaluation import class_logits


def fit(
    model: nn.Module,
    images: Float[Tensor, "n channels height width"],
    labels: Int[Tensor, "n"],
    *,
    steps: int,
    batch_size: int = 64,
    lr: float = 1.5e-3,
    weight_decay: float = 0.05,
    warmup: int = 60,
    shift: int = 2,
    seed: int = 0,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda steps, name: steps,
) -> list[float]:
    """AdamW with linear warm-up and a cosine to 0, cross entropy; the loss of every step.

    Args:
        model: the network, trained in place and where it is.
        images: the training set, normalised.
        labels: its classes.
        steps: of the optimiser.
        batch_size: images per step, drawn anew in each epoch.
        lr: highest learning rate.
        weight_decay: of matrices and filters; vectors are spared.
        warmup: steps, at most a fifth of all.
        shift: images move by up to so many pixels; what enters repeats the border.
        seed: of order and shifts.
        progress: wraps the steps.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    others = [p for p in model.parameters() if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr, weight_decay=weight_decay)
    warmup = min(warmup, max(1, steps // 5))
    order, losses = torch.empty(0, dtype=torch.long), []
    device = next(model.parameters()).device
    model.train()
    for step in progress(range(steps), "training"):
        if len(order) < batch_size:
            order = torch.randperm(len(labels), generator=generator)
        chosen, order = order[:batch_size], order[batch_size:]
        done = (step - warmup) / max(1, steps - warmup)
        rate = (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = lr * rate
        batch = _shifted(images[chosen], shift, generator).to(device)
        loss = F.cross_entropy(class_logits(model(batch)), labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    *,
    batch: int = 250,
) -> float:
    """Share of images whose class is the best guess."""
    model.eval()
    device = next(model.parameters()).device
    found = [class_logits(model(part.to(device))).argmax(-1) for part in images.split(batch)]
    return (torch.cat(found).to(labels.device) == labels).float().mean().item()


def linear_baseline(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, decay: float = 1e-2
) -> float:
    """Accuracy of a linear classifier on the pixels, fitted to its optimum (L-BFGS)."""
    x, y = train[0].flatten(1), train[1]
    layer = nn.Linear(x.shape[1], int(y.max()) + 1)
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(layer(x), y) + decay * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return accuracy(nn.Sequential(nn.Flatten(), layer), *test)


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if not most:
        return images
    h, w = images.shape[-2:]
    padded = F.pad(images, (most,) * 4, mode="replicate")
    places = torch.randint(2 * most + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [image[:, y : y + h, x : x + w] for image, (y, x) in zip(padded, places, strict=True)]
    )
