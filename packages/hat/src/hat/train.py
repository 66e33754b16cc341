"""Train on one device or many: ``python -m hat.train fit --config NAME``."""

from typing import Any

from attention_core.training import main as train
from image_restoration_kit.training import SuperResolutionData, SuperResolutionModule

from hat.model import HAT, HATConfig


class Training(SuperResolutionModule):
    """A HAT under the field's training loop.

    Args:
        network: sizes of the network.
        training: weights to start from, learning rate and schedule.
    """

    def __init__(self, network: HATConfig, **training: Any) -> None:
        super().__init__(HAT(network), **training)


def main() -> None:
    train(Training, SuperResolutionData, package="hat", monitor="val_psnr", mode="max")


if __name__ == "__main__":
    main()
