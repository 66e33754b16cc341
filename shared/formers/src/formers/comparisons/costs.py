"""What a network of each paper costs, over the size of its input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_core import Evidence, Paper, Run

from formers import bench
from formers.comparisons import alone
from formers.registry import entry_points


def cost(quick: Sequence[int], full: Sequence[int], papers: list[Paper], run: Run) -> Evidence:
    """Latency and memory of each package's benchmark variant over the side of the input."""
    sides = full if run.full else quick
    points: dict[str, list[dict[str, Any]]] = {}
    growth = {}
    for paper in papers:
        if paper.benchmark is None:
            continue
        how = bench.Circumstances(variant=paper.benchmark.variant, device=run.device)
        record = bench.bench(
            alone(paper), how, sides, entry=entry_points()[paper.slug], rounds=1,
            progress=run.progress,
        )  # fmt: skip
        points[how.variant] = record["sides"][0]["points"]
        growth[how.variant] = record["sides"][0]["growth"]
    columns = ["network", *(f"{side} x {side}: s, MiB" for side in sides), "grow as side^"]
    rows = [
        [
            name,
            *(f"{p['latency']:.2f}, {(p['memory'] or 0) / 2**20:.0f}" for p in found),
            ", ".join(f"{growth[name][q]:.2f}" for q in ("latency", "memory") if q in growth[name]),
        ]
        for name, found in points.items()
    ]
    return Evidence(
        measured=f"{len(points)} networks at sides {', '.join(map(str, sides))}",
        holds=bool(points),
        numbers={"points": points, "table": {"columns": columns, "rows": rows}},
        figures=(_cost_plot(points, run.output / "cost.png"),),
        note="One forward pass, random weights, float32; memory above set-up at its peak.",
    )


def _cost_plot(points: dict[str, list[dict[str, Any]]], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    kinds = {"latency": ("s", 1.0), "memory": ("MiB above set-up", 2**-20)}
    for axes, (kind, (unit, factor)) in zip(figure.subplots(1, 2), kinds.items(), strict=True):
        for name, found in points.items():
            known = [(p["size"], p[kind] * factor) for p in found if p[kind]]
            axes.plot(*zip(*known, strict=True), marker="o", label=name)
        axes.set(xlabel="side of the input", ylabel=f"{kind}, {unit}", xscale="log", yscale="log")
        sides = [p["size"] for p in next(iter(points.values()))]
        axes.set_xticks(sides, map(str, sides))
        axes.xaxis.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    return path
