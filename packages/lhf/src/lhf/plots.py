"""Pictures of histories, scores and curves (matplotlib, imported where it is used)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lhf.filtering import Scores, episode_returns
from lhf.histories import Histories


def plot_curves(
    path: str | Path, curves: Mapping[str, np.ndarray], label: str = "return / best"
) -> Path:
    """A line per name over episodes."""
    figure, axes = _figure()
    for name, curve in curves.items():
        axes.plot(np.arange(1, len(curve) + 1), curve, label=name)
    axes.set(xlabel="episode", ylabel=label, ylim=(0, None))
    axes.legend(frameon=False)
    return _save(figure, path)


def plot_histories(path: str | Path, named: Mapping[str, Histories]) -> Path:
    """Mean return over the history of each set, with the band of its 10 % to 90 % quantiles."""
    figure, axes = _figure()
    for name, histories in named.items():
        best = histories.best_returns()
        rows = [
            episode_returns(history.rewards, histories.horizon) / best[task]
            for task, history in histories.tasks.items()
        ]
        shortest = min(row.shape[1] for row in rows)
        shares = np.concatenate([row[:, :shortest] for row in rows])
        episode = np.arange(1, shortest + 1)
        axes.plot(episode, shares.mean(0), label=name)
        axes.fill_between(episode, *np.quantile(shares, (0.1, 0.9), 0), alpha=0.15)
    axes.set(xlabel="episode of the history", ylabel="return / best", ylim=(0, 1))
    axes.legend(frameon=False)
    return _save(figure, path)


def plot_scores(path: str | Path, scores: Mapping[int, Scores]) -> Path:
    """How improvement, stability and the metric U are distributed."""
    figure, axes = _figure(3)
    for place, name in zip(axes, ("improvement", "stability", "metric"), strict=True):
        place.hist(np.concatenate([getattr(s, name) for s in scores.values()]), bins=40)
        place.set(xlabel="U" if name == "metric" else name, ylabel="histories")
    return _save(figure, path)


def _figure(columns: int = 1) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(5 * columns, 3.2), layout="constrained")


def _save(figure: Any, path: str | Path) -> Path:
    from attention_core import atomic_path
    from matplotlib import pyplot

    with atomic_path(path) as part:
        figure.savefig(part, dpi=120)
    pyplot.close(figure)
    return Path(path)
