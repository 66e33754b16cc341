"""The restoration problem (our definition): which switch to close next after a blackout.

A *cell* is a maximal set of buses joined by lines without a switch: it is energised as a whole.
Each source owns one island and is its slack. Closing a switch attaches one dead cell to one island,
so islands stay radial.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pidt.feeder import Array, Feeder, number_list
from pidt.powerflow import Tree, solve_many

DIVERGED = "the power flow does not converge"
SLACK = 1e-9
"""How far a limit may be passed, in its own unit."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A substation or a black-start generator that holds the voltage at its bus.

    Raises:
        ValueError: for a voltage out of (0, 2) or a negative capacity.
    """

    vm_pu: float = 1.0
    p_max_mw: float = math.inf
    q_max_mvar: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.vm_pu < 2:
            raise ValueError(f"vm_pu={self.vm_pu}: must be between 0 and 2")
        for field in ("p_max_mw", "q_max_mvar"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"{field}={getattr(self, field)}: must be at least 0")


class Island(NamedTuple):
    """One source's island after its power flow."""

    tree: Tree
    voltage: Array
    """Magnitudes in the tree's order, per unit."""
    power: complex
    """What the source gives, MW + j Mvar."""
    loss: float
    """Active, MW."""
    broken: str
    """The limit that does not hold, or ``""``."""


class State(NamedTuple):
    """The closed switches in the order of closing, and the cells of each island."""

    closed: tuple[int, ...]
    """Positions in the list of switches."""
    cells: tuple[tuple[int, ...], ...]
    """Cells of each source's island, its own first."""
    switches: tuple[tuple[int, ...], ...]
    """Closed switches of each source's island."""


class Restoration:
    """A feeder after a blackout; states are values, so searches share one problem and its flows.

    Args:
        feeder: the network.
        switches: numbers of the lines with a switch; by default those the feeder names.
        sources: bus number -> :class:`Source`, or a mapping of its fields.
        damaged: numbers of lines that stay open.
        load_weights: priority of each bus's load, 1 by default.
        v_min: lowest voltage that is allowed, per unit.
        v_max: highest.
        penalty: what a close that is not feasible costs.
        horizon: most steps; the number of switches by default.

    Raises:
        ValueError: for unknown lines or buses, a loop without a switch, two sources in one cell, no
            source, limits the wrong way round, weights that don't fit.
    """

    def __init__(
        self,
        feeder: Feeder,
        switches: Sequence[int] | None = None,
        sources: Mapping[Any, Any] | None = None,
        *,
        damaged: Sequence[int] = (),
        load_weights: Sequence[float] | None = None,
        v_min: float = 0.95,
        v_max: float = 1.05,
        penalty: float = 0.1,
        horizon: int | None = None,
    ) -> None:
        self.feeder, self.penalty = feeder, penalty
        if switches is None:
            switches = [int(line) + 1 for line in np.flatnonzero(feeder.switchable)]
        self.switches = number_list(switches, feeder.lines, "switch")
        self.damaged = set(number_list(damaged, feeder.lines, "damaged line"))
        if not sources:
            raise ValueError("no source: every island needs one")
        places = number_list([int(bus) for bus in sources], feeder.buses, "source bus")
        self.sources = {
            bus: s if isinstance(s, Source) else Source(**s)
            for bus, s in zip(places, sources.values(), strict=True)
        }
        if not 0 <= v_min < v_max:
            raise ValueError(f"v_min={v_min}, v_max={v_max}: must be 0 <= v_min < v_max")
        self.v_min, self.v_max = v_min, v_max
        if not (math.isfinite(penalty) and penalty >= 0):
            raise ValueError(f"penalty={penalty}: must be finite and at least 0")
        self.horizon = len(self.switches) if horizon is None else horizon
        if self.horizon < 1:
            raise ValueError(f"horizon={horizon}: must be at least 1")
        self.weights = _weights(load_weights, feeder.buses)
        self._load = feeder.load / feeder.base_mva
        self._make_cells()
        self._islands: dict[tuple[int, frozenset[int]], Island] = {}

    def _make_cells(self) -> None:
        """Cells in the order of their smallest bus, as trees from any bus of theirs."""
        feeder, switched = self.feeder, {*self.switches, *self.damaged}
        near: list[list[tuple[int, int]]] = [[] for _ in range(feeder.buses)]
        for line, (a, b) in enumerate(feeder.ends.tolist()):
            if line not in switched:
                near[a].append((b, line))
                near[b].append((a, line))
        self._near = near
        cell = np.full(feeder.buses, -1)
        count = 0
        for bus in range(feeder.buses):
            if cell[bus] < 0:
                cell[self._part(bus).buses] = count
                count += 1
        self.cell_of_bus, self.cells = cell, count
        self._parts: dict[int, Tree] = {}
        homes = [int(cell[bus]) for bus in self.sources]
        for bus, home in zip(self.sources, homes, strict=True):
            if homes.count(home) > 1:
                raise ValueError(
                    f"source bus {bus + 1}: cell {home} has two sources, which no switch parts"
                )
        power = np.zeros(count)
        np.add.at(power, cell, self.weights * feeder.load.real)
        self.cell_mw = power
        """Weighted load of each cell, MW."""
        self.total_mw = float(power.sum())
        self.switch_ends = cell[feeder.ends[self.switches]].reshape(-1, 2)
        """The two cells of each switch."""
        self._usable = np.array([line not in self.damaged for line in self.switches], bool)

    def _part(self, root: int) -> Tree:
        """The cell of ``root`` as a tree from there.

        Raises:
            ValueError: when lines without a switch form a loop.
        """
        feeder = self.feeder
        tree = Tree.root(root, feeder.shunt[root])
        seen, waiting = {root}, [(root, -1)]
        while waiting:
            bus, came = waiting.pop()
            for other, line in self._near[bus]:
                if line == came:
                    continue
                if other in seen:
                    raise ValueError(
                        f"line {line + 1} ({feeder.line_name(line)}) closes a loop of lines "
                        "without a switch: a cell must be radial"
                    )
                seen.add(other)
                waiting.append((other, line))
                part = Tree.root(other, feeder.shunt[other])
                tree = tree.grow(bus, line, feeder.impedance[line], feeder.charging[line], part)
        return tree

    @cached_property
    def start(self) -> State:
        """Every switch open, the sources' own cells energised.

        Raises:
            ValueError: when the power flow of a source's own cell does not converge.
        """
        cells = tuple((int(self.cell_of_bus[bus]),) for bus in self.sources)
        state = State((), cells, ((),) * len(cells))
        for bus, island in zip(self.sources, self.islands(state), strict=True):
            if math.isnan(island.loss):
                raise ValueError(f"source bus {bus + 1}, its own cell: {DIVERGED}")
        return state

    @cached_property
    def overload(self) -> str:
        """What the sources can't carry even before the first switch closes; ``""`` if nothing.

        No switch is feasible then: every island must keep its limits.
        """
        for bus, island in zip(self.sources, self.islands(self.start), strict=True):
            if island.broken:
                return f"source bus {bus + 1}, its own cell: {island.broken}"
        return ""

    def valid(self, state: State) -> Array:
        """Per action, stop last: the switch is open, undamaged, and one of its cells is live."""
        live = np.zeros(self.cells, bool)
        live[[cell for island in state.cells for cell in island]] = True
        ends = live[self.switch_ends]
        allowed = np.ones(len(self.switches) + 1, bool)
        allowed[:-1] = (ends[:, 0] ^ ends[:, 1]) & self._usable
        return allowed

    def feasible(self, state: State) -> Array:
        """The physics mask: valid, and every limit holds afterwards; stop always is."""
        return self.feasible_many([state])[0]

    def feasible_many(self, states: Sequence[State]) -> list[Array]:
        """`feasible` of many states, their power flows solved together."""
        masks = [self.valid(state) for state in states]
        if self.overload:
            return [mask & (np.arange(len(mask)) == len(self.switches)) for mask in masks]
        moves = [
            (row, int(action), self._after(state, int(action)))
            for row, (state, mask) in enumerate(zip(states, masks, strict=True))
            for action in np.flatnonzero(mask[:-1])
        ]
        self._solve([(after, owner) for _, _, (after, owner) in moves])
        for row, action, (after, owner) in moves:
            masks[row][action] = not self._islands[self._key(after, owner)].broken
        return masks

    def close(self, state: State, action: int) -> State:
        """The state after a valid close, feasible or not."""
        return self._after(state, action)[0]

    def _after(self, state: State, action: int) -> tuple[State, int]:
        """That state, and which source's island grew."""
        a, b = self.switch_ends[action].tolist()
        owner = next(i for i, cells in enumerate(state.cells) if a in cells or b in cells)
        new = b if a in state.cells[owner] else a
        cells, switches = list(state.cells), list(state.switches)
        cells[owner] += (new,)
        switches[owner] += (action,)
        return State((*state.closed, action), tuple(cells), tuple(switches)), owner

    def islands(self, state: State) -> list[Island]:
        """Every source's island, solved."""
        owners = range(len(self.sources))
        self._solve([(state, owner) for owner in owners])
        return [self._islands[self._key(state, owner)] for owner in owners]

    def restored(self, state: State) -> float:
        """Weighted load that is on, MW."""
        return float(self.cell_mw[[cell for island in state.cells for cell in island]].sum())

    def voltages(self, state: State) -> Array:
        """Magnitude at every bus, per unit; 0 where dead."""
        voltage = np.zeros(self.feeder.buses)
        for island in self.islands(state):
            voltage[island.tree.buses] = island.voltage
        return voltage

    def observe(self, state: State) -> Array:
        """Which loads are on, |V| of every bus, which switches are closed, and when cells came on.

        The last part is the place of each cell in the order of energisation, the first one 1, over
        the number of cells; 0 for the sources' own and for dead cells.
        """
        voltage = self.voltages(state)
        closed = np.zeros(len(self.switches))
        closed[list(state.closed)] = 1
        order = np.zeros(self.cells)
        for cells, switches in zip(state.cells, state.switches, strict=True):
            for cell, switch in zip(cells[1:], switches, strict=True):
                order[cell] = (state.closed.index(switch) + 1) / self.cells
        lit = voltage[self.feeder.load.real > 0] > 0
        return np.concatenate([lit, voltage, closed, order])

    @cached_property
    def context(self) -> Array:
        """The scenario, which the observation does not tell.

        Load and weighted load of each cell over the feeder's, P and Q (over the feeder's load, at
        most 2) and V of the source in each cell, which switches are damaged, and the horizon over
        the number of switches, at most 2.
        """
        total = float(np.abs(self.feeder.load.real).sum()) or 1.0
        source = np.zeros((3, self.cells))
        for bus, s in self.sources.items():
            given = min(s.p_max_mw / total, 2.0), min(s.q_max_mvar / total, 2.0), s.vm_pu
            source[:, self.cell_of_bus[bus]] = given
        load = np.zeros(self.cells)
        np.add.at(load, self.cell_of_bus, self.feeder.load.real / total)
        weighted = self.cell_mw / (float(np.abs(self.cell_mw).sum()) or 1.0)
        tail = [*~self._usable, min(2.0, self.horizon / max(1, len(self.switches)))]
        return np.concatenate([load, weighted, source.ravel(), tail])

    def _key(self, state: State, owner: int) -> tuple[int, frozenset[int]]:
        return owner, frozenset(state.switches[owner])

    def _solve(self, wanted: Sequence[tuple[State, int]]) -> None:
        """Solve, in one batch, the islands not seen before."""
        new = {self._key(s, o): (s, o) for s, o in wanted}
        new = {key: value for key, value in new.items() if key not in self._islands}
        if not new:
            return
        sources = list(self.sources.items())
        trees = [self._tree(state, owner) for state, owner in new.values()]
        volts = [sources[owner][1].vm_pu for _, owner in new.values()]
        loads = [self._load[tree.buses] for tree in trees]
        flows = solve_many(trees, volts, loads)
        for key, tree, load, flow in zip(new, trees, loads, flows, strict=True):
            source = sources[key[0]][1]
            power = complex(source.vm_pu * np.conj(flow.current.sum())) * self.feeder.base_mva
            loss = power.real - float(load.real.sum()) * self.feeder.base_mva
            loss = loss if flow.converged else math.nan
            magnitude = np.abs(flow.voltage)
            broken = self._broken(
                source, tree, bool(flow.converged), magnitude, power, flow.current
            )
            self._islands[key] = Island(tree, magnitude, power, loss, broken)

    def _tree(self, state: State, owner: int) -> Tree:
        """The island's tree: the one it had before its last close, grown by a cell."""
        closed = state.switches[owner]
        if not closed:
            return self._cell_tree(list(self.sources)[owner])
        known = self._islands.get((owner, frozenset(closed[:-1])))
        before = State((), state.cells, (*state.switches[:owner], closed[:-1]))
        tree = known.tree if known else self._tree(before, owner)
        line = self.switches[closed[-1]]
        a, b = self.feeder.ends[line].tolist()
        at, to = (a, b) if a in tree.buses else (b, a)
        impedance, charging = self.feeder.impedance[line], self.feeder.charging[line]
        return tree.grow(at, line, impedance, charging, self._cell_tree(to))

    def _cell_tree(self, root: int) -> Tree:
        if root not in self._parts:
            self._parts[root] = self._part(root)
        return self._parts[root]

    def _broken(
        self, source: Source, tree: Tree, converged: bool, voltage: Array, power: complex,
        current: Array,
    ) -> str:  # fmt: skip
        """The first limit that the island does not keep, in words."""
        if not converged:
            return DIVERGED
        if voltage.min() < self.v_min - SLACK:
            bus = self.feeder.bus_name(tree.buses[voltage.argmin()])
            return f"{voltage.min():.4f} p.u. at bus {bus}, at least {self.v_min} is allowed"
        if voltage.max() > self.v_max + SLACK:
            bus = self.feeder.bus_name(tree.buses[voltage.argmax()])
            return f"{voltage.max():.4f} p.u. at bus {bus}, at most {self.v_max} is allowed"
        if power.real > source.p_max_mw + SLACK:
            return f"{power.real:.4f} MW, the source has {source.p_max_mw}"
        if abs(power.imag) > source.q_max_mvar + SLACK:
            return f"{power.imag:.4f} Mvar, the source has {source.q_max_mvar}"
        limit = self.feeder.limit[tree.feeding[1:]]
        if np.isfinite(limit).any():
            over = np.abs(tree.below[1:] @ current) - limit
            if (over > SLACK).any():
                line = tree.feeding[1:][over.argmax()]
                return f"line {self.feeder.line_name(line)} carries more than its limit"
        return ""


def _weights(given: Sequence[float] | None, buses: int) -> Array:
    weights = np.ones(buses) if given is None else np.asarray(given, float)
    if weights.shape != (buses,):
        raise ValueError(f"load_weights has {weights.size} entries, the feeder {buses} buses")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("load_weights: must be finite and at least 0")
    return weights
