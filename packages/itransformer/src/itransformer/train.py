"""Train on one device or many: ``python -m itransformer.train fit --config NAME``."""

from typing import Any

from attention_core.training import main as train
from forecasting_kit.training import ForecastDataModule, ForecastModule

from itransformer.model import ITransformer, ITransformerConfig


class Training(ForecastModule):
    """An iTransformer under the field's training loop (Sec. A.2).

    Args:
        network: sizes of the network.
        training: learning rate, schedule, patience and the like.
    """

    def __init__(self, network: ITransformerConfig, **training: Any) -> None:
        super().__init__(ITransformer(network), **training)


def main() -> None:
    train(Training, ForecastDataModule, package="itransformer", monitor="val_mse")


if __name__ == "__main__":
    main()
