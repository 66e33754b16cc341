"""Train on one device or many: ``python -m craft.train fit --config NAME``."""

from typing import Any

from attention_core.training import main as train
from image_restoration_kit.training import SuperResolutionData, SuperResolutionModule

from craft.model import CRAFT, CRAFTConfig


class Training(SuperResolutionModule):
    """A CRAFT under the field's training loop.

    Args:
        network: sizes of the network.
        training: weights to start from, learning rate and schedule.
    """

    def __init__(self, network: CRAFTConfig, **training: Any) -> None:
        super().__init__(CRAFT(network), **training)


def main() -> None:
    train(Training, SuperResolutionData, package="craft", monitor="val_psnr", mode="max")


if __name__ == "__main__":
    main()
