"""Train on one device or many: ``python -m gateformer.train fit --config NAME``."""

from typing import Any

from attention_core.training import main as train
from forecasting_kit.training import ForecastDataModule, ForecastModule

from gateformer.model import Gateformer, GateformerConfig


class Training(ForecastModule):
    """A Gateformer under the field's training loop.

    Args:
        network: sizes of the network.
        training: learning rate, schedule, patience and the like.
    """

    def __init__(self, network: GateformerConfig, **training: Any) -> None:
        super().__init__(Gateformer(network), **training)


def main() -> None:
    train(Training, ForecastDataModule, package="gateformer", monitor="val_mse")


if __name__ == "__main__":
    main()
