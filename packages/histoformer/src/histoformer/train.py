"""Train on one device or many: ``python -m histoformer.train fit --config NAME``."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import require, require_positive
from attention_core.training import main as train
from image_restoration_kit.data import random_patch
from image_restoration_kit.training import SuperResolutionModule
from torch import Tensor

from histoformer.data import WeatherData
from histoformer.loss import pearson_loss
from histoformer.model import Histoformer, HistoformerConfig


@dataclass(frozen=True, kw_only=True)
class Progression:
    """Fewer and larger patches as training goes on; the last stage lasts.

    A stage takes its share from the batch of the data module: the first patches of it, and of these
    a square at one random place.
    """

    iterations: tuple[int, ...]
    """Of each stage."""
    patches: tuple[int, ...]
    """Side of its patches."""
    batches: tuple[int, ...]
    """Patches of each process and step."""

    def __post_init__(self) -> None:
        require_positive(self, "iterations", "patches", "batches")
        for field in ("patches", "batches"):
            same = len(getattr(self, field)) == len(self.iterations)
            require(self, field, same, f"needs an entry for each of iterations={self.iterations}")

    def __call__(self, low: Tensor, high: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The part of a batch that the stage of ``step`` (from 0) trains on."""
        ends = list(accumulate(self.iterations))[:-1]
        stage = bisect_right(ends, step)
        batch, patch = self.batches[stage], self.patches[stage]
        if len(low) < batch or min(low.shape[-2:]) < patch:
            raise ValueError(
                f"patches={patch}, batches={batch}: the data gives {len(low)} of "
                f"{low.shape[-2]} x {low.shape[-1]}"
            )
        return random_patch(low[:batch], high[:batch], patch, 1)


class Training(SuperResolutionModule):
    """A Histoformer under its authors' loop: L1 and correlation, AdamW, a late cosine.

    Args:
        network: sizes of the network.
        start: weights to start from, a file of the authors' or a saved folder.
        progression: patches of each stage; those of the data module throughout by default.
        correlation: weight of the correlation loss.
        lr: rate at the start.
        least: rate at the end.
        constant: iterations before the rate falls.
        iterations: until it has fallen.
        weight_decay: of AdamW.
        tile: tiles of this size in evaluation; whole images by default.
    """

    def __init__(
        self,
        network: HistoformerConfig,
        *,
        start: str | None = None,
        progression: Progression | None = None,
        correlation: float = 1.0,
        lr: float = 3e-4,
        least: float = 1e-6,
        constant: int = 92_000,
        iterations: int = 300_000,
        weight_decay: float = 1e-4,
        tile: int | None = None,
    ) -> None:
        if not 0 <= constant < iterations:
            raise ValueError(
                f"constant={constant}: must be from 0 to below iterations={iterations}"
            )
        super().__init__(Histoformer(network), start=start, lr=lr, betas=(0.9, 0.999), tile=tile)
        self.progression, self.correlation = progression, correlation
        self.least, self.constant, self.iterations = least, constant, iterations
        self.weight_decay = weight_decay

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        low, high = batch
        if self.progression is not None:
            low, high = self.progression(low, high, self.global_step)
        loss, parts = losses(self.model(low), high, self.correlation)
        self.log_dict({"train_loss": loss, **parts}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.model.parameters(), self.lr, self.betas, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.share)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def share(self, step: int) -> float:
        """Of the rate at the start, at a step from 0."""
        done = (step - self.constant) / (self.iterations - self.constant)
        least = self.least / self.lr
        return least + (1 - least) * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2


def losses(
    output: Tensor, target: Tensor, correlation: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """The training loss and its two parts."""
    parts = {"l1": F.l1_loss(output, target), "pearson": pearson_loss(output, target)}
    return parts["l1"] + correlation * parts["pearson"], parts


def main() -> None:
    train(Training, WeatherData, package="histoformer", monitor="val_psnr", mode="max")


if __name__ == "__main__":
    main()
