"""Train in-context learners on one device or many: ``python -m lhf.train fit --config NAME``."""

from collections.abc import Sequence
from typing import Any

import torch
from attention_core.training import DataModule, epoch_seed
from attention_core.training import main as train
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from lhf.data import Drawn, Windows
from lhf.filtering import filter_histories, sampling_weights, score_histories
from lhf.grids import GridFamily, GridWorld
from lhf.histories import Histories, read_histories
from lhf.incontext import evaluate_in_context
from lhf.model import from_variant, total
from lhf.sources import q_learning, random_agents

FILTERS = ("none", "copies", "weights")


class Training(LightningModule):
    """AdamW on windows of histories; its rate falls to 0 by a cosine over all steps.

    Args:
        variant: a published learner.
        changes: of its configuration, by field.
        lr: first learning rate; 1e-2 is for batches of 512 and more.
        weight_decay: of AdamW.
        betas: of AdamW.
        dynamics_strength: weight of the dynamics' losses (DICP).
        beam: of the planner when a model with dynamics is tested; 0 for none.
        episodes: in context, per test.
        context: how a test reads its context; see ``evaluate_in_context``.
    """

    def __init__(
        self,
        variant: str = "ad_darkroom",
        changes: dict[str, Any] | None = None,
        lr: float = 1e-2,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        dynamics_strength: float = 1.0,
        beam: int = 0,
        episodes: int = 50,
        context: str = "window",
    ) -> None:
        super().__init__()
        self.model = from_variant(variant, **(changes or {}))
        self.lr, self.weight_decay, self.betas = lr, weight_decay, betas
        self.strength, self.beam, self.episodes, self.context = (
            dynamics_strength, beam, episodes, context,
        )  # fmt: skip

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        losses = self.model.losses(batch)
        loss = total(losses, self.strength)
        size = len(batch["query_states"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """On grids: returns in held-out tasks, as a share of the best; else the loss, negative."""
        if isinstance(batch, dict):
            score = -total(self.model.losses(batch), self.strength)
            self.log("val_score", score, prog_bar=True, batch_size=len(batch["query_states"]))
            return
        family, tasks = self.trainer.datamodule.held_out  # type: ignore[attr-defined]
        found = evaluate_in_context(
            self.model,
            GridWorld(family, tasks),
            self.episodes,
            context=self.context,
            beam=self.beam,
            generator=torch.Generator(self.device).manual_seed(epoch_seed("in context")),
        )
        curve = torch.from_numpy(found.curve)
        self.log("val_score", curve.mean(), prog_bar=True, batch_size=1)
        self.log("val_last", curve[-10:].mean(), batch_size=1)

    def test_step(self, batch: Any, index: int) -> None:
        self.validation_step(batch, index)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


class HistoryData(DataModule):
    """Windows of an HDF5 file of histories, of the tasks to train on.

    Args:
        file: that ``lhf collect`` or the DICP code wrote; without one, Q-learners and random
            agents on a 5 x 5 darkroom make the histories, in a second.
        variant: of the learner.
        changes: of its configuration.
        filter: ``none``, ``copies`` (the paper's Algorithm 1) or ``weights`` (the same expectation
            by sampling rates).
        stability: λ of the filter.
        sampling: of the filter.
        temperature: of the filter's softmax.
        query: see :class:`lhf.data.Windows`.
        histories: of each task at most.
        steps: of each history at most, as in the published AD runs.
        batch_size: per process.
        steps_per_epoch: batches.
        env: the family, where the file does not tell.
        best: R_max, where the family is not of grids.
        seed: of the filter's draws.
    """

    def __init__(
        self,
        file: str | None = None,
        variant: str = "ad_darkroom",
        changes: dict[str, Any] | None = None,
        filter: str = "none",
        stability: float = 1.0,
        sampling: str = "linear",
        temperature: float = 1.0,
        query: str = "next",
        histories: int | None = None,
        steps: int | None = None,
        batch_size: int = 512,
        steps_per_epoch: int = 1000,
        env: str | None = None,
        best: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if filter not in FILTERS:
            raise ValueError(f"filter={filter!r}: must be one of {', '.join(FILTERS)}")
        self.save_hyperparameters()
        self.config = from_variant(variant, **(changes or {})).config
        self.windows: Windows | None = None

    @property
    def held_out(self) -> tuple[GridFamily, list[int]]:
        """The family, and its tasks to test on."""
        family = self.family
        return family, family.split()[1]

    def setup(self, stage: str | None = None) -> None:
        if self.windows is not None:
            return
        options = self.hparams
        histories = self._histories()
        self.validation = None
        if histories.grid is not None:
            self.family = histories.grid
            histories = histories.only(self.family.split()[0])
        elif len(histories.tasks) > 1:
            *tasks, last = histories.tasks
            self.validation, histories = histories.only([last]), histories.only(tasks)
        if options["histories"] or options["steps"]:
            histories = histories.map(self._shorten)
        settings = {key: options[key] for key in ("stability", "sampling", "temperature")}
        weights = None
        if options["filter"] == "copies":
            histories, _ = filter_histories(histories, **settings, seed=options["seed"])
        elif options["filter"] == "weights":
            weights = sampling_weights(score_histories(histories, **settings))
        self.windows = Windows(histories, self.config, weights=weights, query=options["query"])

    def _histories(self) -> Histories:
        options = self.hparams
        if options["file"] is not None:
            return read_histories(options["file"], env=options["env"], best=options["best"])
        family = GridFamily(size=5, horizon=10, train_share=0.8)
        tasks = family.split()[0]
        size: dict[str, Any] = {"histories": 10, "steps": 400}
        learned = Histories("darkroom", q_learning(family, tasks, **size), 10, family)
        noise = Histories("darkroom", random_agents(family, tasks, **size), 10, family)
        return learned.mix(noise)

    def _shorten(self, task: int, history: Any) -> Any:
        most, steps = self.hparams["histories"], self.hparams["steps"]
        history = history.cut(min(steps or history.steps, history.steps))
        return history.select(range(min(most or len(history), len(history))))

    def train_dataloader(self) -> DataLoader:
        trainer, options = self.attached, self.hparams
        progress: Any = trainer.fit_loop.epoch_progress.current
        if self.windows is None:
            raise RuntimeError("setup comes first")

        def seed() -> int:
            return epoch_seed("windows", progress.processed)

        each = options["batch_size"]
        samples = options["steps_per_epoch"] * each * trainer.world_size
        drawn = Drawn(self.windows, samples, seed)
        return self.shuffled(drawn, each, collate_fn=_as_it_is)

    def val_dataloader(self) -> Any:
        if self.validation is None:
            return self.in_order([0])
        windows = Windows(self.validation, self.config)
        count = min(2048, len(windows))
        places = torch.linspace(0, len(windows) - 1, count).long()
        return [windows.batch(part) for part in places.split(256)]

    def test_dataloader(self) -> Any:
        return self.val_dataloader()


def _as_it_is(batch: Any) -> Any:
    return batch


def main(args: Sequence[str] | None = None) -> Any:
    return train(Training, HistoryData, package="lhf", monitor="val_score", mode="max", args=args)


if __name__ == "__main__":
    main()
