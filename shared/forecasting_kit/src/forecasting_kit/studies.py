"""Parts of the claims that forecasting papers measure on SimBench."""

import functools
from typing import Any

from attention_core import Run
from torch import nn

from forecasting_kit.datasets import load_data
from forecasting_kit.evaluation import evaluate
from forecasting_kit.fitting import fit
from forecasting_kit.metrics import Errors
from forecasting_kit.protocol import Splits, prepare

RATE = 1e-3
SIMBENCH = (
    "SimBench, 138 hourly load and renewable series of 2016, split 70/10/20 %; test MSE in scaled "
    "space over every window. Training ends in autumn and the test is winter."
)


@functools.lru_cache
def simbench(
    lookback: int,
    horizon: int,
    device: str = "cpu",
    variates: int | None = None,
    marks: str | None = "h",
) -> Splits:
    """The protocol's splits; with ``variates``, of that many evenly spaced columns."""
    table = load_data("SimBench")
    if variates is not None:
        step = len(table.names) / variates
        table = table.select([table.names[int(i * step)] for i in range(variates)])
    return prepare(table, lookback, horizon, marks=marks, device=device)


def trained(
    run: Run, model: nn.Module, splits: Splits, epochs: int, what: str, **options: Any
) -> Errors:
    """Fit ``model`` in place and return its errors on the test split.

    ``options`` are those of :func:`~forecasting_kit.fit`; ``train``, ``val`` and ``test`` replace
    the splits' own windows.
    """

    def bar(steps: Any, total: int, epoch: str) -> Any:
        return run.progress(steps, f"{what}, {epoch}")

    train, val = options.pop("train", splits.train), options.pop("val", splits.val)
    test = options.pop("test", splits.test)
    settings = {"lr": RATE, "patience": epochs, "seed": run.seed, "progress": bar, **options}
    fit(model.to(run.device), train, val, epochs=epochs, **settings)
    return evaluate(model, test)
