"""Power flow, feeders and the restoration problem."""

import re
from pathlib import Path

import numpy as np
import pandapower
import pandapower.networks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pidt import Episode, Feeder, Restoration, Source, exact_optimum, load_feeder
from pidt import reference as slow
from pidt.feeder import FeederError, case33bw, feeder, from_pandapower, ieee13, read_matpower
from pidt.policies import greedy, play, random_feasible
from pidt.powerflow import Tree, solve, solve_many
from pidt.scenarios import REFERENCE, problem, reference, reference_scenarios


def chain(buses: int, load: complex = 0.01 + 0.005j, ohm: complex = 0.01 + 0.01j) -> Feeder:
    """A line of buses at 1 kV and 1 MVA."""
    ends = [(i, i + 1) for i in range(buses - 1)]
    return feeder("chain", 1.0, 1.0, np.array(ends), np.full(len(ends), ohm), np.full(buses, load))


def test_islands_agree_with_pandapower() -> None:
    outage = reference()
    net = slow.network(outage.feeder)
    state = play(outage, greedy).state
    voltage, power = slow.run(outage, state, net)
    assert np.abs(np.abs(voltage) - outage.voltages(state)).max() < 1e-8
    given_power = np.array([island.power for island in outage.islands(state)])
    assert np.abs(power - given_power).max() < 1e-7


def test_capacitors_cables_and_transformers_agree_with_pandapower() -> None:
    net = pandapower.networks.create_cigre_network_mv(with_der=False)
    # pandapower charges a line that is open at one end; the sweep sees it open at both.
    net.line.loc[[12, 13, 14], "in_service"] = False
    pandapower.create_shunt(net, 8, q_mvar=-0.2)
    pandapower.runpp(net, tolerance_mva=1e-10, numba=False, trafo_model="pi")
    cable = from_pandapower(net)
    ties = [int(n) + 1 for n in np.flatnonzero(cable.tie)]
    island = Restoration(cable, ties, {1: {"vm_pu": 1.03}}, v_min=0.8, v_max=1.2)
    assert ties == [13, 14, 15]
    found = island.voltages(island.start)
    assert np.abs(found - net.res_bus.vm_pu.to_numpy()).max() < 1e-9
    source = island.islands(island.start)[0].power
    grid = net.res_ext_grid.iloc[0]
    assert abs(source - (grid.p_mw + 1j * grid.q_mvar)) < 1e-6


def test_base_case_of_the_published_feeder() -> None:
    net = pandapower.networks.case33bw()
    theirs, ours = from_pandapower(net), case33bw()
    assert np.allclose(theirs.impedance, ours.impedance, atol=1e-12)
    assert np.allclose(theirs.load, ours.load, atol=1e-12)
    assert (theirs.tie == ours.tie).all()
    assert np.isinf(theirs.limit).all()
    assert theirs.position is not None


def test_ieee13_sums() -> None:
    small = ieee13()
    assert small.load.sum() == pytest.approx(3.466 + 2.102j)
    assert small.shunt.sum() * small.base_mva == pytest.approx(0.7j)
    outage = Restoration(small, None, {small.labels.index("650") + 1: {}}, v_min=0.8, v_max=1.1)
    assert play(outage, greedy).restored_mw == pytest.approx(3.466)


@settings(max_examples=15, deadline=None)
@given(buses=st.integers(1, 9), cases=st.integers(0, 5), seed=st.integers(0, 99))
def test_batches_of_trees_and_of_loads_give_the_same(buses: int, cases: int, seed: int) -> None:
    line = chain(buses)
    tree = Tree.root(0, 0.0)
    for bus in range(1, buses):
        tree = tree.grow(bus - 1, bus - 1, line.impedance[bus - 1], 0.002, Tree.root(bus, 0.001j))
    load = line.load * np.random.default_rng(seed).uniform(0, 1, (cases, buses))
    together = solve(tree, 1.02, load)
    assert together.voltage.shape == (cases, buses)
    several = solve_many([tree, Tree.root(0, 0.0)] * cases, [1.02, 1.0] * cases,
                         [row for case in load for row in (case, case[:1])])  # fmt: skip
    for row in range(cases):
        assert np.allclose(several[2 * row].voltage, together.voltage[row], atol=1e-10)
        assert several[2 * row + 1].voltage == pytest.approx(1.0)
    # Kirchhoff: what each line carries is what hangs below it.
    for voltage, current in zip(together.voltage, together.current, strict=True):
        for bus in range(1, buses):
            drop = line.impedance[bus - 1] * current[bus:].sum()
            assert voltage[bus - 1] - voltage[bus] == pytest.approx(drop, abs=1e-10)


def test_a_collapse_is_not_feasible_and_at_the_start_an_error() -> None:
    heavy = chain(4, load=30 + 10j)
    with pytest.raises(ValueError, match=r"source bus 1, its own cell: .* does not converge"):
        Restoration(heavy, [3], {1: {}}).start  # noqa: B018
    outage = Restoration(heavy, [1, 2, 3], {1: {}}, v_min=0.0, v_max=2.0)
    assert outage.feasible(outage.start).tolist() == [False, False, False, True]
    episode = Episode(outage)
    assert episode.step(0) == -0.1
    assert "does not converge" in episode.steps[0].why


def test_limits_are_named() -> None:
    def why(action: int = 0, **changes: object) -> str:
        source = {"p_max_mw": changes.pop("p", 1.0), "q_max_mvar": changes.pop("q", 1.0)}
        net = changes.pop("net", chain(3, ohm=0.5 + 0.5j))
        outage = Restoration(
            net, [1, 2], {1: {**source, "vm_pu": changes.pop("v", 1.0)}}, **changes
        )
        episode = Episode(outage)
        episode.step(action)
        return episode.steps[0].why

    assert why() == ""
    assert why(p=0.015) == "0.0201 MW, the source has 0.015"
    assert why(q=0.007) == "0.0101 Mvar, the source has 0.007"
    assert "p.u. at bus 2, at least 0.999 is allowed" in why(v_min=0.999)
    assert "at most 1.05 is allowed" in why(v=1.06)
    assert why(1) == "it does not join a live cell and a dead one"
    assert why(damaged=[1]) == "the line is damaged"
    thin = Feeder(**{**vars(chain(3)), "limit": np.array([0.005, np.inf])})
    assert why(net=thin) == "line 1-2 carries more than its limit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"switches": [3, 99]}, "switch 99: must be 1 to 37"),
        ({"switches": [3, 3]}, "switch 3 is given twice"),
        ({"damaged": [0]}, "damaged line 0: must be 1 to 37"),
        ({"sources": {}}, "no source: every island needs one"),
        ({"sources": {40: {}}}, "source bus 40: must be 1 to 33"),
        ({"sources": {8: {}, 7: {}}}, "source bus 8: cell 2 has two sources"),
        ({"sources": {8: {"p_max_mw": -1}}}, "p_max_mw=-1: must be at least 0"),
        ({"sources": {8: {"vm_pu": float("nan")}}}, "vm_pu=nan: must be between 0 and 2"),
        ({"sources": {8: {"power": 1}}}, "source 8: unknown power"),
        ({"sources": {8: 3}}, "source 8: must have vm_pu"),
        ({"switches": [3]}, "closes a loop of lines without a switch"),
        ({"v_min": 1.1}, "v_min=1.1, v_max=1.05: must be 0 <= v_min < v_max"),
        ({"load_weights": [1.0]}, "load_weights has 1 entries, the feeder 33 buses"),
        ({"load_weights": [-1.0] * 33}, "load_weights: must be finite and at least 0"),
        ({"penalty": -1}, "penalty=-1: must be finite and at least 0"),
        ({"horizon": 0}, "horizon=0: must be at least 1"),
    ],
)
def test_bad_problems_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        problem(case33bw(), {**REFERENCE, **change})


def test_loads_must_be_finite() -> None:
    with pytest.raises(FeederError, match=r"chain: load 1 is \(nan"):
        chain(2, load=complex("nan"))
    with pytest.raises(FeederError, match=r"outside 1\.\.2"):
        Feeder(**{**vars(chain(2)), "ends": np.array([[0, 7]])})


def test_the_reference_outage() -> None:
    outage = reference()
    best = exact_optimum(outage)
    assert best.restored_mw == pytest.approx(2.600)
    assert best.states == 188
    assert play(outage, greedy).restored_mw == pytest.approx(2.420)
    state = outage.start
    for action in best.plan:
        assert outage.feasible(state)[action]
        state = outage.close(state, action)
    assert outage.restored(state) == pytest.approx(2.600)
    with pytest.raises(ValueError, match="more than 50 states are reachable"):
        exact_optimum(outage, most_states=50)


def test_weights_decide_the_optimum_and_zero_weights_give_nothing() -> None:
    weights = np.ones(33)
    weights[31:] = 5  # cell 10, which the plain optimum leaves dark
    changed = problem(case33bw(), {**REFERENCE, "load_weights": weights.tolist()})
    best = exact_optimum(changed)
    state = changed.start
    for action in best.plan:
        state = changed.close(state, action)
    assert 10 in {cell for cells in state.cells for cell in cells}
    plain = problem(case33bw(), {**REFERENCE, "load_weights": [0.0] * 33})
    assert all(
        step.reward == 0 for step in play(plain, random_feasible(np.random.default_rng(0))).steps
    )


def test_an_episode_ends_once() -> None:
    outage = problem(case33bw(), {**REFERENCE, "horizon": 2})
    episode = Episode(outage)
    episode.step(1)
    assert not episode.done
    episode.step(0)
    assert episode.truncated
    assert not episode.terminated
    with pytest.raises(ValueError, match="the episode has ended"):
        episode.step(0)
    with pytest.raises(ValueError, match="action=16: must be 0 to 15"):
        Episode(outage).step(16)


def test_an_outage_without_a_feasible_move_offers_stop_alone() -> None:
    tight = {8: {"p_max_mw": 0.95, "q_max_mvar": 0.5}}
    outage = problem(case33bw(), {**REFERENCE, "sources": tight})
    episode = Episode(outage)
    tight[8]["p_max_mw"] = 0.1
    over = problem(case33bw(), {**REFERENCE, "sources": tight})
    assert "source bus 8, its own cell: 0.4602 MW, the source has 0.1" in over.overload
    assert Episode(over).mask.sum() == 1
    assert episode.mask[episode.stop]
    assert Episode(over).step(15) == 0.0


def test_random_outages_repeat_and_can_be_restored() -> None:
    outages = reference_scenarios(horizon=(3, 6))
    first, again = (list(outages.many(4, seed=5)) for _ in range(2))
    assert [o.context.tolist() for o in first] == [o.context.tolist() for o in again]
    assert len({tuple(o.context) for o in first}) == 4
    assert all(3 <= o.horizon <= 6 and o.feasible(o.start)[:-1].any() for o in first)
    with pytest.raises(ValueError, match="no outage among 200 in which anything can be restored"):
        next(reference_scenarios(load=(9.0, 9.0)).many(1, seed=0))


MATPOWER = """function mpc = tiny
mpc.baseMVA = 10; % MVA
mpc.bus = [ %% kW
 1 3 0   0  0 0 1 1 0 11 1 1 1;
 2 1 100 50 0 0 1 1 0 11 1 1 1;
];
mpc.branch = [
 1 2 0.605 0.242 0 5 0 0 0 0 1 -360 360;
 2 1 0.605 0.242 0 0 0 0 0 0 0 -360 360;
];
"""
OHMS = "mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);\n"
KW = "mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;\n"


def test_matpower_files(tmp_path: Path) -> None:
    file = tmp_path / "tiny.m"
    file.write_text(MATPOWER + OHMS + KW)
    tiny = load_feeder(file)
    assert tiny.impedance[0] == pytest.approx((0.605 + 0.242j) * 10 / 121)
    assert tiny.load[1] == pytest.approx(0.1 + 0.05j)
    assert tiny.tie.tolist() == [False, True]
    assert tiny.limit.tolist() == [0.5, np.inf]
    file.write_text(MATPOWER)
    assert read_matpower(file).impedance[0] == pytest.approx(0.605 + 0.242j)
    file.write_text(
        MATPOWER + KW + "pf = 0.85;\nmpc.bus(:, QD) = mpc.bus(:, PD) * sin(acos(pf));\n"
    )
    assert abs(read_matpower(file).load[1]) == pytest.approx(0.1)
    for text, message in (
        ("mpc.baseMVA = 1", "no mpc.bus"),
        (MATPOWER.replace("1 2 0.605", "1 2 x"), "mpc.branch is not a matrix of numbers"),
        (MATPOWER.replace("0 5 0 0 0", "0 5 0 0 1.05"), "branch 1 has a tap"),
        (MATPOWER.replace("mpc.baseMVA", "mpc.base"), "no mpc.baseMVA"),
    ):
        file.write_text(text)
        with pytest.raises(FeederError, match=re.escape(message)):
            read_matpower(file)


def test_pandapower_files(tmp_path: Path) -> None:
    net = pandapower.networks.case33bw()
    pandapower.create_switch(net, 2, 2, et="l")
    pandapower.create_switch(net, 4, 5, et="b", closed=False)
    pandapower.to_json(net, str(tmp_path / "net.json"))
    found = load_feeder(tmp_path / "net.json")
    assert np.flatnonzero(found.switchable).tolist() == [2, 37]
    assert found.impedance[37] == 0
    (tmp_path / "net.json").write_text("[1, 2")
    with pytest.raises(FeederError, match="is not a pandapower network"):
        load_feeder(tmp_path / "net.json")
    with pytest.raises(FileNotFoundError, match="neither a file nor one of case33bw, ieee13"):
        load_feeder("case34")
    net.load.loc[0, "const_z_p_percent"] = 20.0
    with pytest.raises(FeederError, match="constant power only"):
        from_pandapower(net)


def test_sources_have_limits_by_default_infinite() -> None:
    assert Source().p_max_mw == np.inf
