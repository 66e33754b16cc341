"""The training command of every paper, on Lightning's engine.

``python -m PACKAGE.train fit --config NAME`` runs a published configuration of the package by its
name (or a YAML file by its path), writes into ``runs/NAME`` and can be killed and resumed::

    python -m itransformer.train fit --config itransformer_ecl --trainer.devices 8
    python -m itransformer.train fit --config itransformer_ecl --ckpt_path last     # resume
    python -m itransformer.train test --config itransformer_ecl --ckpt_path best

A module of a package keeps its network as ``self.model``; when training ends, the best weights of
that network are written to ``RUN/model`` with ``save_pretrained``.
"""

import importlib.util
import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader, Sampler

from attention_core.checkpoints import read_checkpoint
from attention_core.model import PaperModel


def epoch_seed(*parts: object) -> int:
    """A seed made of the run's own (``seed_everything``) and ``parts``, such as the epoch."""
    name = ":".join(map(str, (os.environ.get("PL_GLOBAL_SEED", "0"), *parts)))
    return zlib.crc32(name.encode())


class EpochBatches(Sampler[list[int]]):
    """Index batches of one process; an epoch's order is a function of the seed and the epoch alone.

    So a run resumed from an epoch's end sees what an unbroken one would have seen, whatever the
    loader prefetched. With several processes, training gives each the same number of samples (the
    last ones repeat from the start), evaluation deals out every sample exactly once.

    Args:
        length: samples in the data set.
        batch_size: samples per batch of this process.
        epoch: tells the current epoch; ``None`` for evaluation, in order and complete.
        drop_last: leave out a last batch that is smaller than the others.
        rank: this process.
        world_size: of how many.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        epoch: Callable[[], int] | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.length, self.batch_size, self.epoch = length, batch_size, epoch
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.generator = torch.Generator()

    def indices(self) -> list[int]:
        """What this process visits in the current epoch, in order."""
        if self.epoch is None:
            return list(range(self.rank, self.length, self.world_size))
        order = torch.randperm(self.length, generator=self.generator).tolist()
        mine = range(self.rank, self.length + -self.length % self.world_size, self.world_size)
        return [order[i % self.length] for i in mine]

    def __iter__(self) -> Iterator[list[int]]:
        if self.epoch is not None:  # the workers draw their seeds from this generator as well
            self.generator.manual_seed(epoch_seed("order", self.epoch()))
        order = self.indices()
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return iter([order[start : start + self.batch_size] for start in starts])

    def __len__(self) -> int:
        mine = -(-self.length // self.world_size)
        if self.epoch is None:
            mine = len(range(self.rank, self.length, self.world_size))
        return mine // self.batch_size if self.drop_last else -(-mine // self.batch_size)


def train_loader(
    dataset: Any, trainer: Trainer, batch_size: int, *, drop_last: bool = False, **options: Any
) -> DataLoader:
    """Shuffled batches of ``dataset`` for this process; exact to resume. See `EpochBatches`."""
    batches = EpochBatches(
        len(dataset),
        batch_size,
        epoch=lambda: _epochs_done(trainer),
        drop_last=drop_last,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    options.setdefault("worker_init_fn", _seed_worker)
    return DataLoader(dataset, batch_sampler=batches, generator=batches.generator, **options)


def eval_loader(dataset: Any, trainer: Trainer, batch_size: int, **options: Any) -> DataLoader:
    """Batches of ``dataset`` in order, every sample in exactly one process."""
    batches = EpochBatches(
        len(dataset), batch_size, rank=trainer.global_rank, world_size=trainer.world_size
    )
    return DataLoader(dataset, batch_sampler=batches, **options)


class DataModule(LightningDataModule):
    """The base of data modules: loaders that know their trainer.

    A subclass with worker processes sets ``workers``.
    """

    workers: int = 0

    def shuffled(self, dataset: Any, batch_size: int, **options: Any) -> DataLoader:
        """Batches to train on; see :func:`train_loader`."""
        workers: Any = {"num_workers": self.workers, "persistent_workers": self.workers > 0}
        return train_loader(dataset, self.attached, batch_size, **workers, **options)

    def in_order(self, dataset: Any, batch_size: int = 1, **options: Any) -> DataLoader:
        """Batches to evaluate on; see :func:`eval_loader`."""
        return eval_loader(dataset, self.attached, batch_size, num_workers=self.workers, **options)

    @property
    def attached(self) -> Trainer:
        """The trainer that uses this module.

        Raises:
            RuntimeError: when none does yet.
        """
        if self.trainer is None:
            raise RuntimeError(f"{type(self).__name__} needs a trainer: call trainer.fit")
        return self.trainer


def _epochs_done(trainer: Trainer) -> int:
    # Right also while a resumed run sets up its loader, when `current_epoch` is one behind.
    done: Any = trainer.fit_loop.epoch_progress.current
    return done.processed


def _seed_worker(worker: int) -> None:
    import numpy as np

    random.seed(torch.initial_seed())
    np.random.seed(torch.initial_seed() % 2**32)  # noqa: NPY002 -- augmentations use it


class SeedEachEpoch(Callback):
    """Makes what a process draws in an epoch a function of the seed, the epoch and the process."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        # A schedule that asks for the number of steps has the loader set up, and its workers fetch,
        # before a resumed run knows its epoch.
        fetcher = trainer.fit_loop._data_fetcher
        if trainer.current_epoch and fetcher is not None:
            iter(fetcher)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        seed = epoch_seed(trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(seed)
        random.seed(seed)


class ExportBest(Callback):
    """Writes the network with its best weights to ``RUN/model`` when training ends."""

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        checkpoint = trainer.checkpoint_callback
        best = getattr(checkpoint, "best_model_path", "") or getattr(
            checkpoint, "last_model_path", ""
        )
        if not (trainer.is_global_zero and best and isinstance(module.model, PaperModel)):
            return
        weights = {
            key.removeprefix("model."): value
            for key, value in read_checkpoint(best, strip=False).items()
            if key.startswith("model.")
        }
        network = type(module.model).from_state(module.model.config, weights)
        network.save_pretrained(Path(trainer.default_root_dir) / "model")


class PaperCLI(LightningCLI):
    """Lightning's command line with packaged configurations and one folder per run."""

    def __init__(
        self, *args: Any, package: str, monitor: str | None, mode: str, **kwargs: Any
    ) -> None:
        self.package, self.monitor, self.mode = package, monitor, mode
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run", type=str, default=f"runs/{self.package}", help="folder of checkpoints and logs"
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        run = Path(self._get(self.config, "run"))
        settings = self._get(self.config_init, "trainer")
        settings["default_root_dir"] = str(run)
        settings["use_distributed_sampler"] = False  # EpochBatches deals the samples out
        if settings.get("logger") in (None, True):
            settings["logger"] = [
                CSVLogger(run, name="", version="csv"),
                TensorBoardLogger(run, name="", version="tensorboard"),
            ]
        callbacks = settings.get("callbacks") or []
        callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
        checkpoints = ModelCheckpoint(
            run / "checkpoints",
            filename="{epoch}-{step}",
            monitor=self.monitor,
            mode=self.mode,
            save_last=True,
            save_on_train_epoch_end=True,  # resuming continues with the next epoch
        )
        settings["callbacks"] = [*callbacks, checkpoints, SeedEachEpoch(), ExportBest()]
        return super().instantiate_trainer(**kwargs)


def main(
    module: type[LightningModule],
    data: type[LightningDataModule],
    *,
    package: str,
    monitor: str | None = None,
    mode: str = "min",
    args: Sequence[str] | None = None,
) -> PaperCLI:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` as the command line says.

    Args:
        module: the paper's training module.
        data: its data module.
        package: the import name; its ``configs`` folder is searched for ``--config NAME``.
        monitor: the logged value that tells the best epoch; the last one is best by default.
        mode: ``"min"`` or ``"max"`` of it.
        args: instead of ``sys.argv``.
    """
    arguments = resolve_configs(sys.argv[1:] if args is None else args, package)
    if args is None:  # processes that Lightning starts for further devices repeat sys.argv
        sys.argv[1:] = arguments
    return PaperCLI(
        module,
        data,
        package=package,
        monitor=monitor,
        mode=mode,
        args=None if args is None else arguments,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
    )


def packaged_configs(package: str) -> dict[str, Path]:
    """The training configurations that ``package`` ships, by name."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    files = sorted((Path(spec.origin).parent / "configs").glob("*.yaml"))
    return {file.stem: file for file in files}


def resolve_configs(arguments: Sequence[str], package: str) -> list[str]:
    """``arguments`` with each ``--config NAME`` turned into the packaged file of that name.

    The first one also names the run's folder, ``runs/NAME``, unless ``--run`` does.

    Raises:
        SystemExit: for a name that is neither a file nor a packaged configuration.
    """
    known, resolved, run = packaged_configs(package), [], None
    expanded = [
        part
        for argument in arguments
        for part in (argument.split("=", 1) if argument.startswith("--config=") else [argument])
    ]
    for previous, argument in zip([None, *expanded], expanded, strict=False):
        if previous in ("--config", "-c"):
            if argument not in known and not Path(argument).is_file():
                raise SystemExit(
                    f"--config {argument}: no such file, and {package} has no configuration of "
                    f"that name; it has {', '.join(known)}"
                )
            run = run or f"runs/{Path(argument).stem}"
            argument = str(known.get(argument, argument))
        resolved.append(argument)
    if run and not any(a == "--run" or a.startswith("--run=") for a in resolved):
        resolved += ["--run", run]
    return resolved
