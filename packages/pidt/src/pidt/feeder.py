"""Distribution feeders: built in, or read from pandapower and MATPOWER files.

Buses and lines are numbered from 1 in the order of the network's tables, as papers do; arrays
inside are in that order from 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Number = int | np.integer

CASE33BW_LINES = """
1 2 .0922 .047; 2 3 .493 .2511; 3 4 .366 .1864; 4 5 .3811 .1941; 5 6 .819 .707; 6 7 .1872 .6188;
7 8 .7114 .2351; 8 9 1.03 .74; 9 10 1.044 .74; 10 11 .1966 .065; 11 12 .3744 .1238;
12 13 1.468 1.155; 13 14 .5416 .7129; 14 15 .591 .526; 15 16 .7463 .545; 16 17 1.289 1.721;
17 18 .732 .574; 2 19 .164 .1565; 19 20 1.5042 1.3554; 20 21 .4095 .4784; 21 22 .7089 .9373;
3 23 .4512 .3083; 23 24 .898 .7091; 24 25 .896 .7011; 6 26 .203 .1034; 26 27 .2842 .1447;
27 28 1.059 .9337; 28 29 .8042 .7006; 29 30 .5075 .2585; 30 31 .9744 .963; 31 32 .3105 .3619;
32 33 .341 .5302; 21 8 2 2; 9 15 2 2; 12 22 2 2; 18 33 .5 .5; 25 29 .5 .5
"""
"""From, to, R and X in ohm (Baran & Wu 1989); the last five are ties."""
CASE33BW_LOADS = """
0/0 100/60 90/40 120/80 60/30 60/20 200/100 200/100 60/20 60/20 45/30 60/35 60/35 120/80 60/10 60/20
60/20 90/40 90/40 90/40 90/40 90/40 90/50 420/200 420/200 60/25 60/25 60/20 120/70 200/600 150/70
210/100 60/40
"""
"""kW/kvar of each bus."""
IEEE13_LINES = """
650 632 2000 601; 632 671 2000 601; 671 680 1000 601; 632 633 500 602; 632 645 500 603;
645 646 300 603; 671 684 300 604; 684 611 300 605; 684 652 800 607; 692 675 500 606
"""
"""Nodes, feet and configuration of the overhead and cable segments."""
IEEE13_OHM_PER_MILE = {
    "601": 0.186 + 0.597j, "602": 0.592 + 0.760j, "603": 1.32 + 1.35j, "604": 1.32 + 1.35j,
    "605": 1.33 + 1.35j, "606": 0.48 + 0.42j, "607": 1.34 + 0.51j,
}  # fmt: skip
IEEE13_LOADS = {
    634: (400, 290), 645: (170, 125), 646: (230, 132), 652: (128, 86), 671: (1155, 660),
    675: (843, 462), 692: (170, 151), 611: (170, 80),
}  # fmt: skip
"""Spot loads, kW and kvar of the three phases together."""


class FeederError(ValueError):
    """A network that is not a feeder this package can restore."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Feeder:
    """A balanced distribution network in per unit: buses, lines that may form loops, loads.

    Raises:
        FeederError: for numbers that are not finite or lines between buses that don't exist.
    """

    name: str
    base_mva: float
    kv: Array
    """Nominal line-to-line voltage of each bus."""
    ends: Array
    """[lines, 2], bus positions from 0."""
    impedance: Array
    """Complex, per unit."""
    charging: Array
    """Total line-charging susceptance, per unit."""
    limit: Array
    """Largest current of each line, per unit; infinite where there is none."""
    load: Array
    """Complex, MW + j Mvar, of constant power."""
    shunt: Array
    """Complex admittance to earth of each bus, per unit; capacitors are +j."""
    tie: Array
    """Lines that are open in normal operation."""
    switchable: Array
    """Lines with a switch; where a file names none, every line."""
    labels: tuple[str, ...] = ()
    """The buses' own names."""
    position: Array | None = None
    """[buses, 2], to draw by."""

    def __post_init__(self) -> None:
        if self.buses < 1:
            raise FeederError(f"{self.name}: a feeder without buses")
        for field in ("kv", "impedance", "charging", "load", "shunt"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, field)))
            if bad.size:
                raise FeederError(
                    f"{self.name}: {field} {bad[0] + 1} is {getattr(self, field)[bad[0]]}, "
                    "must be finite"
                )
        if self.ends.size and (self.ends.min() < 0 or self.ends.max() >= self.buses):
            raise FeederError(f"{self.name}: lines name buses outside 1..{self.buses}")

    @property
    def buses(self) -> int:
        return len(self.kv)

    @property
    def lines(self) -> int:
        return len(self.ends)

    def line_name(self, line: Number) -> str:
        """``7-8`` of the line at position ``line``."""
        a, b = self.ends[line]
        return f"{self.bus_name(a)}-{self.bus_name(b)}"

    def bus_name(self, bus: Number) -> str:
        """The bus's own name, or its number."""
        return self.labels[int(bus)] if self.labels else str(bus + 1)

    def scaled(self, factor: float) -> "Feeder":
        """The feeder with every load multiplied by ``factor``."""
        return replace(self, load=self.load * factor)


def feeder(
    name: str,
    base_mva: float,
    kv: Array | float,
    ends: Array,
    impedance: Array,
    load: Array,
    **rest: Any,
) -> Feeder:
    """A :class:`Feeder` from ohm and MVA.

    Args:
        name: what messages call it.
        base_mva: of the per-unit system.
        kv: of each bus.
        ends: [lines, 2], buses from 0.
        impedance: complex, ohm; a line takes the voltage of its second end.
        load: complex, MW + j Mvar.
        **rest: the other fields of a feeder, in per unit.
    """
    buses, lines = len(load), len(ends)
    ends = np.asarray(ends, int).reshape(-1, 2)
    kv = np.broadcast_to(np.asarray(kv, float), (buses,)).copy()
    fields = {
        "charging": np.zeros(lines),
        "limit": np.full(lines, np.inf),
        "shunt": np.zeros(buses, complex),
        "tie": np.zeros(lines, bool),
        "switchable": np.ones(lines, bool),
        **rest,
    }
    per_unit = np.asarray(impedance) * base_mva / kv[ends[:, 1]] ** 2
    return Feeder(
        name=name, base_mva=base_mva, kv=kv, ends=ends, impedance=per_unit,
        load=np.asarray(load, complex), **fields,
    )  # fmt: skip


def case33bw() -> Feeder:
    """The 33-bus feeder of Baran & Wu: 12.66 kV, 3.715 MW, 32 lines and 5 ties."""
    rows = np.array([row.split() for row in CASE33BW_LINES.split(";")], float)
    kw = np.array([pair.split("/") for pair in CASE33BW_LOADS.split()], float)
    return feeder(
        "case33bw", 10.0, 12.66, rows[:, :2] - 1, rows[:, 2] + 1j * rows[:, 3],
        (kw[:, 0] + 1j * kw[:, 1]) / 1000, tie=np.arange(37) >= 32,
    )  # fmt: skip


def ieee13() -> Feeder:
    """A balanced, single-phase equivalent of the IEEE 13-node feeder: an approximation.

    Phases are averaged, the regulator is left out, and the distributed load between 632 and 671
    stands at 671.
    """
    rows = [row.split() for row in IEEE13_LINES.split(";")]
    nodes = sorted({int(n) for row in rows for n in row[:2]} | {634})
    at = {node: place for place, node in enumerate(nodes)}
    ends = [(at[int(a)], at[int(b)]) for a, b, *_ in rows]
    ohm = [float(feet) / 5280 * IEEE13_OHM_PER_MILE[kind] for _, _, feet, kind in rows]
    ends += [(at[671], at[692]), (at[633], at[634])]
    ohm += [0.0, (0.011 + 0.02j) * 0.48**2 / 0.5]
    kv = np.array([0.48 if node == 634 else 4.16 for node in nodes])
    load = np.zeros(len(nodes), complex)
    for node, (kw, kvar) in {**IEEE13_LOADS}.items():
        load[at[node]] = (kw + 1j * kvar) / 1000
    load[at[671]] += 0.2 + 0.116j
    shunt = np.zeros(len(nodes), complex)
    shunt[at[675]], shunt[at[611]] = 0.6j / 10, 0.1j / 10
    return feeder(
        "ieee13 (balanced equivalent)", 10.0, kv, np.array(ends), np.array(ohm), load,
        shunt=shunt, labels=tuple(map(str, nodes)),
    )  # fmt: skip


FEEDERS = {"case33bw": case33bw, "ieee13": ieee13}
"""Feeders that come with the package, by name."""


def load_feeder(source: str | Path) -> Feeder:
    """A built-in feeder by name, pandapower's JSON, or a MATPOWER ``.m`` file.

    Raises:
        FileNotFoundError: for neither a name nor a file.
        FeederError: for a file that is no such network.
    """
    path = Path(source)
    if str(source) in FEEDERS:
        return FEEDERS[str(source)]()
    if not path.is_file():
        raise FileNotFoundError(
            f"no feeder {source}: neither a file nor one of {', '.join(FEEDERS)}"
        )
    if path.suffix == ".m":
        return read_matpower(path)
    import pandapower

    try:
        net = pandapower.from_json(str(path))
    except Exception as error:  # pandapower raises whatever its parts raise
        raise FeederError(f"{path} is not a pandapower network: {error}") from error
    if not isinstance(net, pandapower.pandapowerNet):
        raise FeederError(f"{path} is not a pandapower network")
    return from_pandapower(net, path.stem)


def from_pandapower(net: Any, name: str = "") -> Feeder:
    """The buses, lines, two-winding transformers, loads and shunts of a pandapower network.

    Static generators count as negative loads. Transformers become lines, after the lines of the
    network, closed bus-bus switches lines without impedance after those. Lines with a switch are
    ``switchable``, lines out of service or behind an open switch are ``tie`` lines.

    Raises:
        FeederError: for three-winding transformers, taps off neutral, or loads that depend on
            voltage.
    """
    for table in ("trafo3w", "impedance", "xward", "ward", "dcline"):
        if len(net.get(table, ())):
            raise FeederError(f"{name or net.name}: {table} elements are not supported")
    place = {index: position for position, index in enumerate(net.bus.index)}
    base, kv = float(net.sn_mva), net.bus.vn_kv.to_numpy(float)
    switch = net.switch
    opened = {(s.et, s.element) for s in switch.itertuples() if not s.closed}
    known = {(s.et, s.element) for s in switch.itertuples()}
    ends, ohm, farad, limit, tie, switchable = [], [], [], [], [], []
    for line in net.line.itertuples():
        km, parallel = line.length_km, line.parallel
        ends.append((place[line.from_bus], place[line.to_bus]))
        ohm.append((line.r_ohm_per_km + 1j * line.x_ohm_per_km) * km / parallel)
        farad.append(line.c_nf_per_km * 1e-9 * km * parallel)
        # 99999 kA is how case files say that there is no limit.
        limit.append(line.max_i_ka * parallel * line.df if line.max_i_ka < 9999 else np.inf)
        tie.append(not line.in_service or ("l", line.Index) in opened)
        switchable.append(("l", line.Index) in known)
    for trafo in net.trafo.itertuples():
        if trafo.tap_pos == trafo.tap_pos and trafo.tap_pos != trafo.tap_neutral:
            raise FeederError(f"transformer {trafo.Index}: tap_pos={trafo.tap_pos} is off neutral")
        ends.append((place[trafo.hv_bus], place[trafo.lv_bus]))
        r, z = trafo.vkr_percent / 100, trafo.vk_percent / 100
        ohm.append((r + 1j * np.sqrt(z**2 - r**2)) * trafo.vn_lv_kv**2 / trafo.sn_mva)
        farad.append(0.0)
        limit.append(np.inf)
        tie.append(not trafo.in_service or ("t", trafo.Index) in opened)
        switchable.append(("t", trafo.Index) in known)
    for s in switch[switch.et == "b"].itertuples():
        ends.append((place[s.bus], place[s.element]))
        ohm.append(0.0)
        farad.append(0.0)
        limit.append(np.inf)
        tie.append(not s.closed)
        switchable.append(True)
    load = np.zeros(len(kv), complex)
    for table, sign in (("load", 1), ("sgen", -1)):
        for row in net[table][net[table].in_service].itertuples():
            for field in ("const_z_p_percent", "const_i_p_percent", "const_z_percent"):
                if getattr(row, field, 0) > 0:
                    raise FeederError(f"load {row.Index}: {field} is not 0; constant power only")
            load[place[row.bus]] += sign * (row.p_mw + 1j * row.q_mvar) * row.scaling
    shunt = np.zeros(len(kv), complex)
    for row in net.shunt[net.shunt.in_service].itertuples():
        rated = (row.vn_kv / kv[place[row.bus]]) ** 2
        shunt[place[row.bus]] += (row.p_mw - 1j * row.q_mvar) * row.step / rated / base
    position = _positions(net)
    ends_array = np.array(ends, int).reshape(-1, 2)
    base_ohm = kv[ends_array[:, 1]] ** 2 / base
    kiloamperes = base / (np.sqrt(3) * kv[ends_array[:, 1]])
    frequency = float(net.f_hz)
    return feeder(
        name or net.name or "network", base, kv, ends_array, np.array(ohm, complex), load,
        charging=2 * np.pi * frequency * np.array(farad) * base_ohm,
        limit=np.array(limit, float) / kiloamperes,
        shunt=shunt, tie=np.array(tie, bool),
        switchable=np.array(switchable) if any(switchable) else np.ones(len(ends), bool),
        position=position,
    )  # fmt: skip


def _positions(net: Any) -> Array | None:
    """Coordinates of the buses, where every bus has them."""
    import json

    try:
        points = [json.loads(geo)["coordinates"][:2] for geo in net.bus.geo]
    except (AttributeError, TypeError, ValueError, KeyError):
        return None
    return np.array(points, float)


def read_matpower(path: str | Path) -> Feeder:
    """A MATPOWER case, with the unit conversions that its distribution cases end with.

    Raises:
        FeederError: for a file without the tables, or with transformer taps.
    """
    text = re.sub(r"%.*", "", Path(path).read_text())
    bus, branch = (_matrix(text, name, path) for name in ("bus", "branch"))
    found = re.search(r"mpc\.baseMVA\s*=\s*([\d.eE+-]+)", text)
    if found is None:
        raise FeederError(f"{path}: no mpc.baseMVA")
    base = float(found[1])
    if (off := branch[:, 8] * (branch[:, 8] != 1)).any():
        raise FeederError(f"{path}: branch {np.flatnonzero(off)[0] + 1} has a tap")
    place = {int(number): position for position, number in enumerate(bus[:, 0])}
    ends = np.array([[place.get(int(a), -1), place.get(int(b), -1)] for a, b in branch[:, :2]])
    kv = bus[:, 9]
    ohm = branch[:, 2] + 1j * branch[:, 3]
    if not re.search(r"mpc\.branch\(:, \[BR_R BR_X\]\)\s*/\s*\(Vbase\^2", text):
        ohm = ohm * kv[ends[:, 1]] ** 2 / base
    load = bus[:, 2] + 1j * bus[:, 3]
    if re.search(r"mpc\.bus\(:, \[PD, QD\]\)\s*/\s*1e3", text):
        load = load / 1e3
    if pf := re.search(r"pf = ([\d.]+);\s*mpc\.bus\(:, QD\) = mpc\.bus\(:, PD\) \*", text):
        factor = float(pf[1])
        load = load.real * (factor + 1j * np.sin(np.arccos(factor)))
    rating = np.where(branch[:, 5] > 0, branch[:, 5] / base, np.inf)
    return feeder(
        Path(path).stem, base, kv, ends, ohm, load, charging=branch[:, 4], limit=rating,
        shunt=(bus[:, 4] + 1j * bus[:, 5]) / base, tie=branch[:, 10] == 0,
    )  # fmt: skip


def _matrix(text: str, name: str, path: str | Path) -> Array:
    found = re.search(rf"mpc\.{name}\s*=\s*\[(.*?)\]", text, re.DOTALL)
    rows = [row.split() for row in re.split(r"[;\n]", found[1])] if found else []
    try:
        return np.array([row for row in rows if row], float)
    except ValueError as error:
        raise FeederError(f"{path}: mpc.{name} is not a matrix of numbers") from error
    finally:
        if found is None:
            raise FeederError(f"{path}: no mpc.{name}")


def number_list(numbers: Sequence[int] | Mapping[int, Any], most: int, what: str) -> list[int]:
    """Positions from 0 of ``numbers`` counted from 1.

    Raises:
        ValueError: for a number outside 1..most, or given twice.
    """
    found = [int(number) for number in numbers]
    if unknown := [number for number in found if not 1 <= number <= most]:
        raise ValueError(f"{what} {unknown[0]}: must be 1 to {most}")
    if twice := [number for number in found if found.count(number) > 1]:
        raise ValueError(f"{what} {twice[0]} is given twice")
    return [number - 1 for number in found]
