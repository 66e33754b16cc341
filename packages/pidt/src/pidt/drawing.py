"""The switching sequence on the feeder: as text, and as a picture."""

from pathlib import Path
from typing import Any

import numpy as np
from attention_core import atomic_path

from pidt.episode import Episode
from pidt.feeder import Array, Feeder
from pidt.problem import Restoration, State


def bus_list(problem: Restoration, cell: int) -> str:
    """The buses of a cell: ``4-6``, ``1, 2``, ..."""
    names = [
        problem.feeder.bus_name(bus) for bus in np.flatnonzero(problem.cell_of_bus == cell).tolist()
    ]
    run = all(name.isdigit() for name in names) and len(names) > 2
    if run and [int(name) - int(names[0]) for name in names] == list(range(len(names))):
        return f"{names[0]}-{names[-1]}"
    return ", ".join(names)


def island_lines(problem: Restoration, state: State) -> list[str]:
    """Each source's island as a tree of cells and the switches that fed them; then what is dark."""
    lines = []
    for owner, (bus, source) in enumerate(problem.sources.items()):
        island = problem.islands(state)[owner]
        lines.append(
            f"source at bus {problem.feeder.bus_name(bus)}: {island.power.real:.3f} of "
            f"{source.p_max_mw:.3f} MW, {island.power.imag:.3f} of {source.q_max_mvar:.3f} Mvar, "
            f"lowest voltage {island.voltage.min():.4f} p.u."
        )
        fed: dict[int, list[tuple[int, int]]] = {}
        own = state.cells[owner]
        for switch, cell in zip(state.switches[owner], own[1:], strict=True):
            a, b = problem.switch_ends[switch].tolist()
            fed.setdefault(a if cell == b else b, []).append((switch, cell))
        lines += _branch(problem, state, fed, own[0], "", f"buses {bus_list(problem, own[0])}")
    live = {cell for cells in state.cells for cell in cells}
    for cell in range(problem.cells):
        if cell not in live:
            lines.append(f"dark: buses {bus_list(problem, cell)}, {problem.cell_mw[cell]:.3f} MW")
    return lines


def _branch(
    problem: Restoration, state: State, fed: dict[int, list[tuple[int, int]]], cell: int,
    indent: str, title: str,
) -> list[str]:  # fmt: skip
    lines = [f"{title}, {problem.cell_mw[cell]:.3f} MW"]
    children = fed.get(cell, [])
    for place, (switch, child) in enumerate(children):
        last = place == len(children) - 1
        line = problem.switches[switch]
        text = (
            f"{indent}{'└─' if last else '├─'} step {state.closed.index(switch) + 1}: switch "
            f"{line + 1} ({problem.feeder.line_name(line)}) feeds buses {bus_list(problem, child)}"
        )
        lines += _branch(problem, state, fed, child, indent + ("   " if last else "│  "), text)
    return lines


def layout(feeder: Feeder) -> Array:
    """[buses, 2]: the feeder's own coordinates, or its tree of closed lines from the left."""
    if feeder.position is not None:
        return feeder.position
    near: list[list[int]] = [[] for _ in range(feeder.buses)]
    for (a, b), tie in zip(feeder.ends.tolist(), feeder.tie, strict=True):
        if not tie:
            near[a].append(b)
            near[b].append(a)
    depth, row, seen = np.zeros(feeder.buses), np.zeros(feeder.buses), set()
    free = 0
    for root in range(feeder.buses):
        waiting = [] if root in seen else [(root, 0, False)]
        while waiting:
            bus, steps, aside = waiting.pop()
            if bus in seen:
                continue
            seen.add(bus)
            free += aside
            depth[bus], row[bus] = steps, free
            following = [other for other in near[bus] if other not in seen]
            # The first branch goes straight on, the others below it.
            waiting += [(other, steps + 1, place > 0) for place, other in enumerate(following)][
                ::-1
            ]
        free += 1
    return np.stack([depth, -row], 1)


def draw(episode: Episode, path: str | Path, title: str = "") -> None:
    """A picture of the feeder: islands in colour, each closed switch with its step.

    Raises:
        ValueError: for a file type that matplotlib can't write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix[1:] not in kinds:
        raise ValueError(f"{path}: a picture must end in one of .{', .'.join(sorted(kinds))}")
    problem, state = episode.problem, episode.state
    feeder, place = problem.feeder, layout(problem.feeder)
    colours = ["tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:red", "tab:brown"]
    owner = {cell: i for i, cells in enumerate(state.cells) for cell in cells}
    shade = [
        colours[owner[cell] % len(colours)] if cell in owner else "lightgrey"
        for cell in problem.cell_of_bus.tolist()
    ]
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.add_subplot()
    closed = {problem.switches[action]: step + 1 for step, action in enumerate(state.closed)}
    for line, (a, b) in enumerate(feeder.ends.tolist()):
        x, y = place[[a, b]].T
        switch = line in problem.switches
        style = "-" if not switch or line in closed else ":"
        colour = shade[a] if style == "-" else "darkgrey"
        axes.plot(x, y, style, color="tab:red" if line in problem.damaged else colour, zorder=1)
        if switch:
            mark = str(closed[line]) if line in closed else "x" if line in problem.damaged else ""
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "darkgrey", "lw": 0.5}
            middle: dict[str, Any] = {"ha": "center", "va": "center", "size": 7, "bbox": box}
            axes.text(x.mean(), y.mean(), mark or " ", **middle)
    axes.scatter(place[:, 0], place[:, 1], s=40, c=shade, zorder=2)
    for bus in range(feeder.buses):
        centred: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": 7}
        axes.annotate(feeder.bus_name(bus), place[bus], (0, 5), **centred)
    sources = list(problem.sources)
    star: dict[str, Any] = {"marker": "*", "s": 160, "edgecolors": "black", "zorder": 3}
    axes.scatter(place[sources, 0], place[sources, 1], c=[shade[bus] for bus in sources], **star)
    axes.set_title(title or f"{episode.restored_mw:.3f} of {problem.total_mw:.3f} MW restored")
    axes.axis("off")
    FigureCanvasAgg(figure)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=130)
