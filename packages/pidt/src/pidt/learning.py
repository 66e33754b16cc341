"""Training without Lightning, for a CPU and minutes; ``train.py`` is the command for GPUs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pidt.model import PIDT
from pidt.trajectories import Sequences, Trajectories


def sequence_loss(model: PIDT, batch: tuple[Tensor, ...]) -> Float[Tensor, ""]:
    """Mean loss of the actions taken, over the steps that are not padding."""
    states, actions, returns, times, masks, present = batch
    taken = F.one_hot(actions, model.config.actions).to(states.dtype)
    logits = model(states, taken, returns, times, present).actions
    return model.loss(logits[present], actions[present], masks[present]).mean()


def optimiser(
    model: PIDT, steps: int, *, lr: float = 1e-4, weight_decay: float = 1e-4, warmup: float = 0.1
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, its rate rising over the first ``warmup`` of the steps, then falling to 0."""
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    rising = max(1, int(warmup * steps))

    def rate(step: int) -> float:
        left = (steps - step) / max(1, steps - rising)
        return min((step + 1) / rising, max(left, 0.0))

    return adam, torch.optim.lr_scheduler.LambdaLR(adam, rate)


def fit(
    model: PIDT,
    data: Trajectories,
    *,
    steps: int = 2000,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    clip: float = 0.25,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[float]:
    """Train in place, leave the model in evaluation mode, and return the losses.

    Args:
        model: of the data's sizes.
        data: what to imitate.
        steps: of the optimiser.
        batch_size: episodes per step.
        lr: highest learning rate.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        seed: of the batches.
        progress: wraps the steps, for a bar.

    Raises:
        ValueError: when the data is of other sizes than the model.
    """
    sequences = Sequences(data, model.config)
    device = model.embed_return.weight.device
    generator = torch.Generator().manual_seed(seed)
    adam, schedule = optimiser(model, steps, lr=lr, weight_decay=weight_decay)
    losses = []
    model.train()
    for _ in progress(range(steps)):
        rows = torch.randint(len(sequences), (batch_size,), generator=generator)
        loss = sequence_loss(model, tuple(part.to(device) for part in sequences[rows]))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        adam.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses
