"""What the studies of forecasting papers share: real series, a training, rivals, an open design."""

import functools
from importlib.metadata import entry_points
from typing import Any, Protocol

from attention_core import PaperModel, Run
from torch import Tensor, nn

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


class VariateForecaster(Protocol):
    """A forecaster in three steps, between which another paper's part can be put."""

    config: Any
    """With ``lookback``, ``horizon`` and ``dim``."""

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """The window [batch, lookback, variates], and the mean and deviation that were taken."""

    def embed(self, window: Tensor, marks: Tensor | None) -> Tensor:
        """A token per variate, then any others: [batch, tokens, dim]."""

    def interact(self, tokens: Tensor) -> Tensor:
        """Tokens that saw each other."""

    def project(self, tokens: Tensor) -> Tensor:
        """The variates' tokens as forecasts [batch, horizon, variates], in the window's scale."""


def published_network(slug: str) -> type[PaperModel]:
    """The first network of an installed paper: what claims set a paper's own beside.

    Raises:
        ModuleNotFoundError: when it is not installed.
    """
    for entry in entry_points(group="formers.papers", name=slug):
        return entry.load().models[0]
    raise ModuleNotFoundError(f"formers-{slug} is not installed")


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
