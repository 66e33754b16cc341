"""The same physics by pandapower: slow, independent, for tests and races (extra ``feeders``)."""

from typing import Any

import numpy as np

from pidt.feeder import Array, Feeder
from pidt.problem import Restoration, State


def network(feeder: Feeder) -> Any:
    """The feeder as a pandapower network, every line in service, without sources."""
    import pandapower

    net = pandapower.create_empty_network(sn_mva=feeder.base_mva)
    for kv in feeder.kv:
        pandapower.create_bus(net, vn_kv=kv)
    for line, (a, b) in enumerate(feeder.ends.tolist()):
        base = feeder.kv[b] ** 2 / feeder.base_mva
        z = feeder.impedance[line] * base
        nanofarad = feeder.charging[line] / base / (2 * np.pi * net.f_hz) * 1e9
        pandapower.create_line_from_parameters(
            net, a, b, 1.0, r_ohm_per_km=z.real, x_ohm_per_km=z.imag, c_nf_per_km=nanofarad,
            max_i_ka=99999.0,
        )  # fmt: skip
    for bus, s in enumerate(feeder.load):
        if s:
            pandapower.create_load(net, bus, p_mw=s.real, q_mvar=s.imag)
    for bus, y in enumerate(feeder.shunt):
        if y:
            s = y * feeder.base_mva
            pandapower.create_shunt(net, bus, p_mw=s.real, q_mvar=-s.imag)
    return net


def run(problem: Restoration, state: State, net: Any) -> tuple[Array, Array]:
    """Newton's power flow of the live islands of ``state``.

    Returns:
        Complex voltages of the buses, 0 where dead, and complex power of the sources, MW.
    """
    import pandapower

    live = {cell for cells in state.cells for cell in cells}
    net.bus["in_service"] = [int(cell) in live for cell in problem.cell_of_bus]
    closed = {problem.switches[action] for action in state.closed}
    opened = {*problem.switches, *problem.damaged} - closed
    net.line["in_service"] = [line not in opened for line in range(problem.feeder.lines)]
    net.ext_grid.drop(net.ext_grid.index, inplace=True)
    for bus, source in problem.sources.items():
        pandapower.create_ext_grid(net, bus, vm_pu=source.vm_pu)
    pandapower.runpp(net, tolerance_mva=1e-10, numba=False)
    angle = np.exp(1j * np.radians(net.res_bus.va_degree.to_numpy()))
    voltage = np.nan_to_num(net.res_bus.vm_pu.to_numpy() * angle)
    return voltage, net.res_ext_grid.p_mw.to_numpy() + 1j * net.res_ext_grid.q_mvar.to_numpy()


def greedy_step(problem: Restoration, state: State, net: Any) -> int:
    """One greedy decision whose candidates are each tried with pandapower."""
    import pandapower

    best, choice = 0.0, len(problem.switches)
    before = problem.restored(state)
    for action in np.flatnonzero(problem.valid(state)[:-1]).tolist():
        after = problem.close(state, action)
        try:
            voltage, power = run(problem, after, net)
        except pandapower.LoadflowNotConverged:
            continue
        live = np.abs(voltage[voltage != 0])
        sources = zip(problem.sources.values(), power, strict=True)
        held = all(p.real <= s.p_max_mw and abs(p.imag) <= s.q_max_mvar for s, p in sources)
        gained = problem.restored(after) - before
        if held and problem.v_min <= live.min() <= live.max() <= problem.v_max and gained > best:
            best, choice = gained, action
    return choice
