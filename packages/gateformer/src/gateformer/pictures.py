"""Pictures of the gates; matplotlib is imported where it is used."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_gates(shares: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Two bars per column: whole window against patches, itself against all columns."""
    from matplotlib.figure import Figure

    names = list(shares)
    figure = Figure(figsize=(9, 1.5 + 0.2 * len(names)), layout="constrained")
    sides = figure.subplots(1, 2, sharey=True)
    titles = {"whole_window": ("whole window", "patches"), "own": ("itself", "all columns")}
    for axes, (gate, (first, rest)) in zip(sides, titles.items(), strict=True):
        values = [shares[name][gate] for name in names]
        axes.barh(names, values, label=first)
        axes.barh(names, [1 - value for value in values], left=values, label=rest, color="0.8")
        axes.set(xlim=(0, 1), xlabel="share")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    sides[0].tick_params(axis="y", labelsize=7)
    sides[0].invert_yaxis()
    return figure
