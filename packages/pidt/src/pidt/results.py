"""Figures of played restorations against the exact optimum."""

from collections.abc import Iterable, Sequence

import numpy as np

from pidt.episode import Episode
from pidt.optimum import exact_optimum
from pidt.problem import Restoration


def optima(problems: Iterable[Restoration]) -> list[float]:
    """The exact optimum of each problem, weighted MW."""
    return [exact_optimum(problem).restored_mw for problem in problems]


def summary(episodes: Sequence[Episode], best: Sequence[float]) -> dict[str, float]:
    """Means over episodes.

    ``share`` is the restored load over the optimum's, ``optimal`` how often that is all of it,
    ``refused`` the number of closes that were not feasible.
    """
    share = np.array([e.restored_mw / b for e, b in zip(episodes, best, strict=True)])
    return {
        "share": float(share.mean()),
        "optimal": float((share > 1 - 1e-9).mean()),
        "restored_mw": float(np.mean([e.restored_mw for e in episodes])),
        "refused": sum(e.refused for e in episodes),
        "steps": float(np.mean([len(e.steps) for e in episodes])),
    }
