"""Train on one device or many: ``python -m craft.train fit --config NAME``."""

from typing import Any

from attention_core.training import main as train
from image_restoration_kit.training import SuperResolutionData, SuperResolutionModule, start_from

from craft.model import CRAFT, CRAFTConfig, load


class Training(SuperResolutionModule):
    """A CRAFT under the field's training loop.

    Args:
        network: sizes of the network.
        start: weights to start from, a file of the authors' or a saved folder; those of another
            shape (the upsampling of another scale) stay as drawn.
        training: learning rate and schedule.
    """

    def __init__(self, network: CRAFTConfig, start: str | None = None, **training: Any) -> None:
        model = CRAFT(network)
        if start is not None:
            start_from(model, load(start), body="groups.")
        super().__init__(model, **training)


def main() -> None:
    train(Training, SuperResolutionData, package="craft", monitor="val_psnr", mode="max")


if __name__ == "__main__":
    main()
