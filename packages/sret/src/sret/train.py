"""Train on one device or many: ``python -m sret.train fit --config NAME``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attention_core.training import main as train
from image_classification_kit.training import ClassificationModule, ImageData, start_from
from jaxtyping import Float
from torch import Tensor

from sret.cli import load
from sret.distillation import Teacher, distillation_loss
from sret.model import SReT, SReTConfig


class Training(ClassificationModule):
    """SReT under the DeiT recipe; with a teacher, on its soft labels alone.

    Args:
        network: sizes of the network.
        weights: the authors' file, or a saved folder, to start from; its positions are resampled,
            and a head of another number of classes starts anew.
        teacher: a timm network, ``module:function`` that makes a callable, or a callable; it sees
            the student's images, mixed as they are.
        teacher_weights: file for a timm teacher; its pretrained weights by default.
        temperature: of both sides' logits.
        training: learning rate, schedule, mixing and the like.
    """

    def __init__(
        self,
        network: SReTConfig,
        weights: str | None = None,
        teacher: str | Callable[[Tensor], Tensor] | None = None,
        teacher_weights: str | None = None,
        temperature: float = 1.0,
        **training: Any,
    ) -> None:
        model = SReT(network)
        if weights is not None:
            source = load(Path(weights)).resized(network.image_size)
            start_from(model, source.state_dict(), "classifier.")
        super().__init__(model, **training)
        self.temperature = temperature
        if isinstance(teacher, str):
            teacher = Teacher.named(teacher, weights=teacher_weights)
        elif teacher is not None and not isinstance(teacher, Teacher):
            teacher = Teacher(teacher)
        # In a list it is no part of the module: checkpoints hold the student alone.
        self.teacher = [] if teacher is None else [teacher]

    def loss(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b classes"]
    ) -> Float[Tensor, ""]:
        if not self.teacher:
            return super().loss(images, targets)
        teacher = self.teacher[0].to(images.device)
        logits = self.model(images)
        return distillation_loss(logits, teacher(images), temperature=self.temperature)


def main() -> None:
    train(Training, ImageData, package="sret", monitor="val_top1", mode="max")


if __name__ == "__main__":
    main()
