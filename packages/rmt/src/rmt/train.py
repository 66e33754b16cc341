"""Train on one device or many: ``python -m rmt.train fit --config NAME``."""

from typing import Any

from attention_core import read_checkpoint
from attention_core.training import main as train
from image_classification_kit.training import ClassificationModule, ImageData
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
            start_from(model, weights)
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


def start_from(model: RMT, weights: str) -> None:
    """Load everything but heads of another shape.

    Raises:
        CheckpointError: when anything else is missing or does not fit.
    """
    from pathlib import Path

    from attention_core import load_state

    if Path(weights).is_dir():
        state = read_checkpoint(Path(weights) / "model.safetensors")
    else:
        state = convert(read_checkpoint(weights), RMTConfig)[1]
    own = model.state_dict()
    heads = ("classifier.", "token_classifier.")
    kept = {
        key: value
        for key, value in state.items()
        if not key.startswith(heads) or (key in own and own[key].shape == value.shape)
    }
    fresh = {key: value for key, value in own.items() if key.startswith(heads)}
    load_state(model, {**fresh, **kept})


def main() -> None:
    train(Training, ImageData, package="rmt", monitor="val_top1", mode="max")


if __name__ == "__main__":
    main()
