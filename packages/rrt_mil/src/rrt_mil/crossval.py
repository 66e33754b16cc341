"""K-fold training of a folder of features, evaluation, and prediction; what the command runs."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_core import needs_extra, to_dict, write_text
from jaxtyping import Float
from torch import Tensor

from rrt_mil import survival
from rrt_mil.bags import Bag, BagError, read_bag
from rrt_mil.data import TableBags
from rrt_mil.model import R2TMIL, R2TMILConfig
from rrt_mil.tables import Table, folds

TASK_FILE = "task.json"
RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the folds of a run are trained."""

    folds: int = 5
    split_seed: int = 2021
    val_share: float = 0.0
    """Of each class's training patients, to choose the best epoch by; 0, as published, chooses it
    on the test part."""
    epochs: int = 200
    patience: int = 30
    """Epochs without a better score before stopping."""
    start: int = 130
    """The first epoch that may be the last."""
    lr: float = 2e-4
    weight_decay: float = 1e-5
    batch_size: int = 1
    seed: int = 2021
    macro_f1: bool = False
    drop_invalid: bool = False
    skip_missing: bool = False
    keep: bool = True
    workers: int = 0
    accelerator: str = "auto"
    confounders: Path | None = None
    """Prototypes of IBMIL."""


def cross_validate(
    table: Table,
    features: Path,
    labels: Path,
    network: R2TMILConfig,
    settings: Settings,
    output: Path,
) -> dict[str, Any]:
    """Train every fold and test it on its own part; what is done already is not done again.

    Each fold is a run of ``python -m rrt_mil.train`` in ``output/fold_K``: killed and called again,
    it goes on with the epoch it was in. ``output/results.json`` holds the folds' test metrics,
    their mean and standard deviation.

    Raises:
        BagError: when the table can't be divided, or ``output`` holds a run of other settings.
    """
    with needs_extra("rrt-mil", "train"):
        from rrt_mil.train import main

    parts = folds(table, settings.folds, settings.split_seed)
    config = _config(table, features, labels, network, settings)
    path = output / "config.yaml"
    text = json.dumps(config, indent=1)  # JSON is YAML
    if path.is_file() and path.read_text() != text:
        raise BagError(f"{output} holds a run with other settings; choose another folder")
    write_text(path, text)
    found = []
    for fold, (_, test) in enumerate(parts):
        home = output / f"fold_{fold}"
        scores = home / RESULTS
        if not scores.is_file():
            arguments = ["fit", "--config", str(path), "--data.fold", str(fold), "--run", str(home)]
            if (home / "checkpoints" / "last.ckpt").is_file():
                arguments += ["--ckpt_path", "last"]
            with warnings.catch_warnings():  # of arguments given twice: sys.argv is the command's
                warnings.filterwarnings("ignore", ".*args parameter is intended.*")
                main(arguments)
            task = {"task": table.task, "classes": table.classes}
            write_text(home / "model" / TASK_FILE, json.dumps(task, indent=1))
            tested = test_fold(home / "model", test, settings)
            write_text(scores, json.dumps(tested, indent=1))
        found.append(json.loads(scores.read_text()))
    names = [name for name in found[0] if name != "threshold"]
    summary = {
        "folds": found,
        "mean": {name: float(np.mean([f[name] for f in found])) for name in names},
        "std": {name: float(np.std([f[name] for f in found])) for name in names},
    }
    write_text(output / RESULTS, json.dumps(summary, indent=1))
    return summary


def test_fold(model: Path, test: Table, settings: Settings) -> dict[str, float]:
    """Metrics of a trained fold on its test part."""
    return evaluate(
        R2TMIL.from_pretrained(model),
        test,
        macro=settings.macro_f1,
        drop_invalid=settings.drop_invalid,
    )


def evaluate(
    model: R2TMIL,
    table: Table,
    *,
    macro: bool = False,
    drop_invalid: bool = False,
    progress: Any = None,
) -> dict[str, float]:
    """AUC, accuracy and F1 at the ROC threshold; of survival, the C-index.

    Raises:
        BagError: when the metrics are undefined (bags of one class only), or features don't fit.
    """
    from rrt_mil.metrics import classification_metrics, concordance_index

    bags = TableBags(table, width=model.config.features, drop_invalid=drop_invalid)
    steps: Iterable[int] = range(len(bags))
    logits = torch.cat(
        [_logits(model, bags[i].features) for i in (progress(steps) if progress else steps)]
    )
    items = table.items
    try:
        if table.task == "survival":
            times = np.array([item.time for item in items])
            observed = np.array([item.observed for item in items])
            return {"c_index": concordance_index(times, observed, survival.risk(logits).numpy())}
        labels = np.array([item.label for item in items])
        return classification_metrics(labels, logits.softmax(-1).numpy(), macro=macro)
    except ValueError as error:
        raise BagError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one slide."""

    slide: str
    path: Path
    instances: int
    label: str
    """The likeliest class (or time bin)."""
    scores: Mapping[str, float]
    """Chance of each class; of survival, the risk and the chance to outlive each time bin."""
    attention: Float[Tensor, "instances"]
    """Weight of each instance, for the likeliest class."""
    bag: Bag


def predict(
    model: R2TMIL, task: Mapping[str, Any], paths: Sequence[Path], *, drop_invalid: bool = False
) -> Iterator[Prediction]:
    """Predictions of feature files, one by one."""
    names = list(task["classes"])
    for path in paths:
        bag = read_bag(path, width=model.config.features, drop_invalid=drop_invalid)
        with torch.no_grad():
            bags = model.bags(bag.features.to(model.projection.weight.device))
        logits = bags.logits.double().cpu()
        chances = logits.softmax(-1)[0]
        scores = {f"p_{name}": float(p) for name, p in zip(names, chances, strict=True)}
        best = int(chances.argmax())
        if task["task"] == "survival":
            past = survival.survival(logits)[0]
            scores = {"risk": float(survival.risk(logits))}
            scores |= {f"past_{name}": float(p) for name, p in zip(names, past, strict=True)}
            best = int((past > 0.5).sum().clamp(max=len(names) - 1))
        maps = bags.scores[0].float().softmax(-1).cpu()
        yield Prediction(
            slide=bag.name,
            path=path,
            instances=len(bag.features),
            label=names[best],
            scores=scores,
            attention=maps[best % len(maps)],
            bag=bag,
        )


def read_task(model: Path, network: R2TMILConfig) -> dict[str, Any]:
    """What the model's classes are called, as ``train`` wrote it; numbers if it did not."""
    file = model / TASK_FILE
    if file.is_file():
        return json.loads(file.read_text())
    return {"task": "classification", "classes": [str(c) for c in range(network.classes)]}


@torch.no_grad()
def _logits(model: R2TMIL, features: Tensor) -> Float[Tensor, "1 classes"]:
    return model(features.to(model.projection.weight.device)).double().cpu()


def _config(
    table: Table, features: Path, labels: Path, network: R2TMILConfig, settings: Settings
) -> dict[str, Any]:
    """The run as a configuration of ``python -m rrt_mil.train``."""
    stopping = {
        "class_path": "rrt_mil.train.PatientStopping",
        "init_args": {"patience": settings.patience, "start": settings.start},
    }
    return {
        "seed_everything": settings.seed,
        "model": {
            "network": to_dict(network),
            "task": table.task,
            "lr": settings.lr,
            "weight_decay": settings.weight_decay,
            "macro_f1": settings.macro_f1,
            "confounders": settings.confounders and str(settings.confounders.resolve()),
        },
        "data": {
            "features": str(features.resolve()),
            "labels": str(labels.resolve()),
            "classes": list(table.classes) if table.task == "classification" else None,
            "folds": settings.folds,
            "split_seed": settings.split_seed,
            "val_share": settings.val_share,
            "batch_size": settings.batch_size,
            "workers": settings.workers,
            "keep": settings.keep,
            "drop_invalid": settings.drop_invalid,
            "skip_missing": settings.skip_missing,
            "width": network.features,
        },
        "trainer": {
            "max_epochs": settings.epochs,
            "accelerator": settings.accelerator,
            "devices": 1,
            "log_every_n_steps": 1,
            "callbacks": [stopping],
        },
    }
