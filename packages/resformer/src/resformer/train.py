"""Train on one device or many: ``python -m resformer.train fit --config NAME``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_core import read_checkpoint
from attention_core.training import main as train
from image_classification_kit.training import ClassificationModule, smooth, start_from
from torch import Tensor

from resformer.consistency import CONSISTENCY, multi_size_losses
from resformer.data import MultiSizeData, mix_views
from resformer.model import TARGETS, ResFormer, ResFormerConfig


class Training(ClassificationModule):
    """ResFormer at several sizes in every step, each taught by the next larger one (Sec. 3.2).

    Args:
        network: sizes of the network.
        weights: the authors' file, a saved folder or a plain ViT's file to start from; a head of
            another number of classes starts anew.
        consistency: how a size is compared with the next larger one: ``"smooth-l1"``, ``"l2"`` or
            ``"cosine"``; ``None`` for cross entropy alone.
        target: what is compared: ``"cls"``, ``"gap"`` or ``"logit"``.
        consistency_weight: of the comparison.
        sizes_per_step: how many neighbouring sizes a step takes, in turn; all by default.
        mix_each: draw mixup and cutmix for each size, rather than once for all.
        checkpointing: recompute the blocks in the backward pass, for less memory.
        training: learning rate, schedule, mixing and the like.
    """

    def __init__(
        self,
        network: ResFormerConfig,
        weights: str | None = None,
        consistency: str | None = "smooth-l1",
        target: str = "cls",
        consistency_weight: float = 1.0,
        sizes_per_step: int | None = None,
        mix_each: bool = False,
        checkpointing: bool = False,
        **training: Any,
    ) -> None:
        if consistency not in (None, *CONSISTENCY):
            raise ValueError(
                f"consistency={consistency!r}: must be None or one of {', '.join(CONSISTENCY)}"
            )
        if target not in TARGETS:
            raise ValueError(f"target={target!r}: must be one of {', '.join(TARGETS)}")
        if sizes_per_step is not None and sizes_per_step < 1:
            raise ValueError(f"sizes_per_step={sizes_per_step}: must be at least 1")
        model = ResFormer(network)
        if weights is not None:
            start_from(model, weights_of(weights, network.heads), "classifier.")
        model.set_grad_checkpointing(checkpointing)
        if target != "gap":
            # They reach the patches alone: distributed training would wait for their gradients.
            model.blocks[-1].attention.local.requires_grad_(False)  # type: ignore[union-attr]
        super().__init__(model, **training)
        self.consistency, self.consistency_weight = consistency, consistency_weight
        self.target, self.sizes_per_step, self.mix_each = target, sizes_per_step, mix_each

    def training_step(self, batch: Sequence[Any], index: int) -> Tensor:
        views, labels = self._window(batch[0]), batch[1]
        targets: Any = smooth(labels, self.model.config.classes, self.smoothing)
        if self.mix is not None and len(labels) > 1:
            if self.mix_each:
                pairs = [self.mix(view, labels) for view in views]
                views, targets = [x for x, _ in pairs], [target for _, target in pairs]
            else:
                views, targets = mix_views(self.mix, views, targets)
        losses = multi_size_losses(
            (self.model.view(x, self.target) for x in views),
            targets,
            consistency=self.consistency,
            weight=self.consistency_weight,
        )
        self.log_dict({f"train_loss_{x.shape[-1]}": v for x, v in zip(views, losses, strict=True)})
        self.log("train_loss", losses.mean(), prog_bar=True)
        return losses.mean()

    def _window(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The sizes that this step takes."""
        count = min(self.sizes_per_step or len(views), len(views))
        start = self.global_step % (len(views) - count + 1)
        return list(views[start : start + count])


def weights_of(source: str, heads: int) -> dict[str, Tensor]:
    """The entries of the authors' file, a saved folder or a plain ViT's file, under our names."""
    if not Path(source).is_dir() and "pos_embed" in (state := read_checkpoint(source)):
        return ResFormer.from_vit(state, heads=heads).state_dict()
    return ResFormer.load(Path(source)).state_dict()


def main() -> None:
    train(Training, MultiSizeData, package="resformer", monitor="val_top1", mode="max")


if __name__ == "__main__":
    main()
