"""Train on one device or many: ``python -m tnt.train fit --config NAME``."""

from pathlib import Path
from typing import Any

from attention_core.training import main as train
from image_classification_kit.training import ClassificationModule, ImageData, start_from

from tnt.model import TNT, TNTConfig


class Training(ClassificationModule):
    """TNT under the DeiT recipe.

    Args:
        network: sizes of the network.
        weights: the authors' file, or a saved folder, to start from; its positions are resampled,
            and a head of another number of classes starts anew.
        training: learning rate, schedule, mixing and the like.
    """

    def __init__(self, network: TNTConfig, weights: str | None = None, **training: Any) -> None:
        model = TNT(network)
        if weights is not None:
            source = TNT.load(Path(weights)).resized(network.image_size)
            start_from(model, source.state_dict(), "classifier.")
        super().__init__(model, **training)


def main() -> None:
    train(Training, ImageData, package="tnt", monitor="val_top1", mode="max")


if __name__ == "__main__":
    main()
