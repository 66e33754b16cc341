"""AC power flow of radial islands by backward-forward sweep, many at once.

With I the buses' currents, V = V₀ - Z I holds on a tree, where Z[i, j] is the impedance that the
paths from the source to i and to j share. Repeating it is the backward-forward sweep with both
passes in one product. Loads are of constant power, so I = conj(S / V) + Y V.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pidt.feeder import Array

TOLERANCE = 1e-12
"""Largest change of a voltage in the last sweep, per unit."""
MOST_SWEEPS = 200
DIVERGING = 10.0
"""A voltage that changes by this much, per unit, is no longer a feeder's."""
PAUSE = 8
"""Sweeps between looks at which cases have settled."""
BLOCK = 1024
"""Load cases per block: what the caches of a core hold."""


class Flow(NamedTuple):
    """Voltages and currents of islands; leading axes are those of the load cases."""

    voltage: Array
    """Complex, per unit; [..., buses]."""
    current: Array
    """What each bus draws, complex, per unit."""
    converged: Array
    """Bool; [...]. Voltages of a case that did not converge mean nothing."""


@dataclass(frozen=True, eq=False)
class Tree:
    """An energised island: its buses in the order of energisation, the source's first.

    ``paths`` is Z above; ``below[l, j]`` whether bus j draws its current through the line that
    feeds bus l.
    """

    buses: Array
    paths: Array
    below: Array
    feeding: Array
    """The line that feeds each bus; -1 for the source's."""
    shunt: Array
    """Admittance to earth, with half the charging of every line that is closed."""

    @classmethod
    def root(cls, bus: int, shunt: complex) -> "Tree":
        zero = np.zeros((1, 1))
        return cls(
            np.array([bus]), zero.astype(complex), zero.astype(bool), np.array([-1]),
            np.array([shunt], complex),
        )  # fmt: skip

    def place(self, bus: int) -> int:
        """Where ``bus`` stands in the island's order."""
        return int(np.flatnonzero(self.buses == bus)[0])

    def grow(self, at: int, line: int, impedance: complex, charging: float, part: "Tree") -> "Tree":
        """The island with ``part`` attached, by its root, to the bus ``at`` through ``line``.

        Args:
            at: a bus of this island.
            line: its position.
            impedance: of the line, per unit.
            charging: of the line, both ends together, per unit.
            part: a tree of further buses.
        """
        here, old, new = self.place(at), len(self.buses), len(part.buses)
        paths = np.empty((old + new, old + new), complex)
        paths[:old, :old] = self.paths
        paths[old:, :old] = self.paths[here]
        paths[:old, old:] = self.paths[here][:, None]
        paths[old:, old:] = part.paths + (self.paths[here, here] + impedance)
        below = np.zeros((old + new, old + new), bool)
        below[:old, :old] = self.below
        below[:old, old:] = self.below[:, here, None]
        below[old:, old:] = part.below
        below[old, old:] = True
        shunt = np.concatenate([self.shunt, part.shunt])
        shunt[[here, old]] += 0.5j * charging
        feeding = np.concatenate([self.feeding, part.feeding])
        feeding[old] = line
        return Tree(np.concatenate([self.buses, part.buses]), paths, below, feeding, shunt)


def solve(tree: Tree, source: float, load: Array, *, tolerance: float = TOLERANCE) -> Flow:
    """Power flow of one tree under any number of load cases.

    Args:
        tree: the island.
        source: voltage at its first bus, per unit.
        load: complex, per unit, [..., buses] in the tree's order.
        tolerance: see `TOLERANCE`.
    """
    cases = load.reshape(-1, load.shape[-1])
    blocks = [
        _sweep(tree.paths, source, cases[start : start + BLOCK], tree.shunt, tolerance)
        for start in range(0, len(cases), BLOCK)
    ]
    if not blocks:
        return Flow(load.astype(complex), load.astype(complex), np.ones(load.shape[:-1], bool))
    voltage, current, converged = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Flow(
        voltage.reshape(load.shape), current.reshape(load.shape), converged.reshape(load.shape[:-1])
    )


def solve_many(
    trees: list[Tree], sources: list[float], loads: list[Array], *, tolerance: float = TOLERANCE
) -> list[Flow]:
    """Power flow of many trees, each under one load case; islands may differ in size."""
    flows = []
    for start in range(0, len(trees), BLOCK):
        part = trees[start : start + BLOCK]
        most = max(len(tree.buses) for tree in part)
        paths = np.zeros((len(part), most, most), complex)
        load, shunt = np.zeros((2, len(part), most), complex)
        for i, tree in enumerate(part):
            size = len(tree.buses)
            paths[i, :size, :size] = tree.paths
            load[i, :size] = loads[start + i]
            shunt[i, :size] = tree.shunt
        source = np.array(sources[start : start + BLOCK])[:, None]
        found = _sweep(paths, source, load, shunt, tolerance)
        sizes = (len(tree.buses) for tree in part)
        flows += [
            Flow(v[:size], i[:size], done) for v, i, done, size in zip(*found, sizes, strict=True)
        ]
    return flows


def _sweep(
    paths: Array, source: Array | float, load: Array, shunt: Array, tolerance: float
) -> Flow:
    """Sweeps of [cases, buses]; ``paths`` is [buses, buses] or [cases, buses, buses].

    Cases that have settled or diverged leave the batch, so that a slow one costs its own sweeps.
    """
    shared, earthed = paths.ndim == 2, bool(np.any(shunt))
    source = np.broadcast_to(np.asarray(source, complex), (len(load), 1))
    shunt = np.broadcast_to(shunt, load.shape)
    voltage = np.repeat(source, load.shape[1], 1)
    converged = np.zeros(len(load), bool)
    transposed = np.ascontiguousarray(paths.T) if shared else None
    rows = np.arange(len(load))
    v0, v, s, y, z = source, voltage, load, shunt, paths
    with np.errstate(all="ignore"):
        for sweep in range(MOST_SWEEPS):
            current = np.conj(s / v)
            if earthed:
                current += y * v
            drop = current @ transposed if shared else np.matmul(z, current[..., None])[..., 0]
            last, v = v, v0 - drop
            change = np.abs(v - last).max(-1, initial=0)
            moving = (change > tolerance) & (change < DIVERGING)
            if sweep % PAUSE == PAUSE - 1 or not moving.any():
                voltage[rows], converged[rows] = v, change <= tolerance
                rows = rows[moving]
                if not rows.size:
                    break
                v0, v, s, y = v0[moving], v[moving], s[moving], y[moving]
                z = z if shared else z[moving]
        current = np.conj(load / voltage) + shunt * voltage
    return Flow(voltage, current, converged)
