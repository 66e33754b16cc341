"""Train on one device or many: ``python -m rmt.train fit --config NAME``."""

from pathlib import Path
from typing import Any

from attention_core import read_checkpoint
from attention_core.model import WEIGHTS_FILE
from attention_core.training import main as train
from image_classification_kit.training import ClassificationModule, ImageData, start_from
from jaxtyping import Float
from torch import Tensor

from rmt.model import RMT, RMTConfig, TokenLabelOutput
from rmt.official import convert
from rmt.token_labels import token_label_loss


class Training(ClassificationModule):
    """RMT under the DeiT recipe; with token labels, their loss is added.

    Args:
        network: sizes of the network.
        weights: the authors' file, or a saved folder, to start from; heads of another number of
            classes start anew.
        class_weight: of the image's part of the loss with token labels.
        token_weight: of the tokens' part; each token's target is the image's.
        training: learning rate, schedule, mixing and the like.
    """

    def __init__(
        self,
        network: RMTConfig,
        weights: str | None = None,
        class_weight: float = 1.0,
        token_weight: float = 0.5,
        **training: Any,
    ) -> None:
        model = RMT(network)
        if weights is not None:
            start_from(model, weights_of(weights), "classifier.", "token_classifier.")
        super().__init__(model, **training)
        self.class_weight, self.token_weight = class_weight, token_weight

    def loss(
        self, images: Float[Tensor, "b c h w"], targets: Float[Tensor, "b classes"]
    ) -> Float[Tensor, ""]:
        outputs = self.model(images)
        if not isinstance(outputs, TokenLabelOutput):
            return super().loss_of(outputs, targets)
        return token_label_loss(
            *outputs, targets, class_weight=self.class_weight, token_weight=self.token_weight
        )


def weights_of(source: str) -> dict[str, Tensor]:
    """The entries of the authors' file or of a saved folder, under the network's names."""
    if Path(source).is_dir():
        return read_checkpoint(Path(source) / WEIGHTS_FILE)
    return convert(read_checkpoint(source), RMTConfig)[1]


def main() -> None:
    train(Training, ImageData, package="rmt", monitor="val_top1", mode="max")


if __name__ == "__main__":
    main()
