"""Minutes of training on bundled photographs: enough to see that a network learns.

From scratch, minutes don't reach bicubic enlargement. So the network is put beside it: its last
layer starts at zero and its output is added to the bicubic image, and what is measured is the gain
over that image. The papers train without this skip.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from image_restoration_kit.data import random_patch
from image_restoration_kit.enlarge import enlarge, symmetry
from image_restoration_kit.metrics import psnr, quantise
from image_restoration_kit.photographs import HELD_OUT, TRAINING, photograph
from image_restoration_kit.resize import modcrop, resize


class BicubicSkip(nn.Module):
    """Bicubic enlargement plus ``network``, whose last convolution starts at zero."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        *_, layer = (part for part in network.modules() if isinstance(part, nn.Conv2d))
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        self.scale, self.channels = network.scale, network.channels
        self.multiple, self.reach = network.multiple, network.reach

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        # Networks add a mean colour to what their last layer gives.
        return resize(image, self.scale) + self.network(image) - self.network.mean


@dataclass(frozen=True, kw_only=True)
class ShortRun:
    """What one run showed on the centres of the photographs that it was not trained on."""

    seed: int
    gain: float
    """Mean PSNR on luma over bicubic, dB."""
    psnr: dict[str, float]
    bicubic: dict[str, float]
    loss_ratio: float
    """Training loss in the last quarter over that of bicubic on the same patches."""
    losses: list[float] = field(repr=False)
    model: BicubicSkip = field(repr=False)


def short_run(
    build: Callable[[], Any],
    *,
    steps: int,
    seed: int,
    scale: int,
    batch: int = 8,
    patch: int = 24,
    lr: float = 3e-4,
    side: int = 256,
    device: str = "cpu",
    training: Sequence[str] = TRAINING,
    held_out: Sequence[str] = HELD_OUT,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda numbers: numbers,
) -> ShortRun:
    """Train a fresh network for ``steps`` batches of patches, L1 under Adam, the rate falling.

    Args:
        build: makes the network, under the seed.
        steps: batches.
        seed: of weights, patches and augmentation.
        scale: of the network.
        batch: patches per step.
        patch: side of a low-resolution patch.
        lr: rate at the start; it falls to zero along a cosine.
        side: of the high-resolution centres that are evaluated.
        device: where to train.
        training: names of photographs.
        held_out: names of others.
        progress: wraps the steps.
    """
    torch.manual_seed(seed)
    pairs = [_pair(photograph(name), scale) for name in training]
    model = BicubicSkip(build()).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr, (0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses, plain = [], []
    for _ in progress(range(steps)):
        chosen = [pairs[int(i)] for i in torch.randint(len(pairs), (batch,))]
        numbers = torch.randint(8, (batch,)).tolist()
        patches = [
            tuple(symmetry(side, number) for side in random_patch(low, high, patch, scale))
            for (low, high), number in zip(chosen, numbers, strict=True)
        ]
        low, high = (torch.stack(side).to(device) for side in zip(*patches, strict=True))
        loss = F.l1_loss(model(low), high)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        plain.append(F.l1_loss(resize(low, scale), high).item())
    model.eval()
    found, bicubic = {}, {}
    for name in held_out:
        low, high = _pair(_centre(photograph(name), side), scale)
        low = quantise(low).float() / 255
        truth = quantise(high)
        enlarged = enlarge(model, low[None])[0]
        found[name] = psnr(quantise(enlarged), truth, border=scale)
        bicubic[name] = psnr(quantise(resize(low, scale)), truth, border=scale)
    recent = -max(1, steps // 4)
    return ShortRun(
        seed=seed,
        gain=statistics.mean(found[name] - bicubic[name] for name in held_out),
        psnr=found,
        bicubic=bicubic,
        loss_ratio=sum(losses[recent:]) / sum(plain[recent:]),
        losses=losses,
        model=model,
    )


def _pair(high: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    high = modcrop(high, scale)
    return resize(high, Fraction(1, scale)), high


def _centre(image: Tensor, side: int) -> Tensor:
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]
