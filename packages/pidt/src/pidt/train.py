"""Train on one device or many: ``python -m pidt.train fit --config NAME``."""

from collections.abc import Sequence
from typing import Any

from attention_core.training import DataModule
from attention_core.training import main as train
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from pidt.learning import optimiser, sequence_loss
from pidt.model import PIDT, PIDTConfig
from pidt.scenarios import reference_scenarios
from pidt.trajectories import Sequences, Trajectories, collect


class RestorationData(DataModule):
    """Recorded restorations.

    Args:
        trajectories: an ``.npz`` file of `pidt collect`; without one, outages of the 33-bus feeder.
        outages: how many of these.
        val_share: of the episodes, the last ones, to validate on.
        batch_size: episodes per step and process.
        workers: processes that load them.
    """

    def __init__(
        self,
        trajectories: str | None = None,
        outages: int = 16,
        val_share: float = 0.1,
        batch_size: int = 64,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < val_share < 1:
            raise ValueError(f"val_share={val_share}: must be in (0, 1)")
        self.trajectories, self.outages, self.val_share = trajectories, outages, val_share
        self.batch_size, self.workers = batch_size, workers
        self.parts: dict[str, Subset] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.parts:
            return
        if self.trajectories is None:
            data = collect(reference_scenarios().many(self.outages, seed=0))
        else:
            data = Trajectories.load(self.trajectories)
        network: Any = self.attached.lightning_module.model
        sequences = Sequences(data, network.config)
        first = max(1, int(len(sequences) * (1 - self.val_share)))
        self.parts = {
            "train": Subset(sequences, range(first)),
            "val": Subset(sequences, range(first, len(sequences))),
        }

    def train_dataloader(self) -> DataLoader:
        return self.shuffled(self.parts["train"], self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self.in_order(self.parts["val"], self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()


class Training(LightningModule):
    """AdamW with warm-up and linear decay on the loss of the configuration.

    Args:
        network: sizes, and how physics takes part.
        lr: highest learning rate.
        weight_decay: of AdamW.
        gpt2: folder of a GPT-2 whose trunk the training starts from.
    """

    def __init__(
        self,
        network: PIDTConfig,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        gpt2: str | None = None,
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        if gpt2 is None:
            self.model = PIDT(network)
        else:
            fields = ("state_dim", "actions", "steps", "mask", "penalty", "feature", "context")
            self.model = PIDT.from_gpt2(gpt2, **{f: getattr(network, f) for f in fields})

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss = sequence_loss(self.model, tuple(batch))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val_loss", sequence_loss(self.model, tuple(batch)), prog_bar=True, sync_dist=True)

    def test_step(self, batch: list[Tensor], index: int) -> None:
        self.log("test_loss", sequence_loss(self.model, tuple(batch)), sync_dist=True)

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        adam, schedule = optimiser(self.model, steps, lr=self.lr, weight_decay=self.weight_decay)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(args: Sequence[str] | None = None) -> Any:
    return train(Training, RestorationData, package="pidt", monitor="val_loss", args=args)


if __name__ == "__main__":
    main()
