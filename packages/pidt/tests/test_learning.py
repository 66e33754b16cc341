"""The network's physics, behaviour data, decisions, environments and agents."""

import re
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from attention_core import Run
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from pidt import PIDT, PIDTConfig, exact_optimum
from pidt.env import RestorationEnv, constant
from pidt.feeder import ieee13
from pidt.learning import fit
from pidt.paper import PAPER
from pidt.policies import optimal, play, restore, roll_out
from pidt.problem import Restoration
from pidt.scenarios import reference, reference_scenarios
from pidt.trajectories import Sequences, Trajectories, collect

TINY = PIDTConfig(state_dim=91, dim=16, layers=1, steps=16, positions=1)


@pytest.fixture(scope="module")
def data() -> Trajectories:
    return collect(reference_scenarios().many(4, seed=1), episodes=3)


@settings(max_examples=10, deadline=None)
@given(batch=st.integers(1, 3), steps=st.integers(1, 7), padded=st.integers(0, 4))
def test_padding_on_the_left_changes_nothing(batch: int, steps: int, padded: int) -> None:
    torch.manual_seed(0)
    model = PIDT(PIDTConfig(state_dim=5, actions=4, dim=8, layers=2, heads=2, steps=8)).eval()
    parts = [
        torch.randn(batch, steps, 5),
        torch.randn(batch, steps, 4),
        torch.rand(batch, steps, 1),
    ]
    times = torch.arange(steps).expand(batch, -1)
    pads = [torch.cat([torch.randn(batch, padded, part.shape[2]), part], 1) for part in parts]
    late = torch.cat([torch.zeros(batch, padded, dtype=torch.long), times], 1)
    mask = torch.arange(padded + steps).expand(batch, -1) >= padded
    with torch.no_grad():
        alone, among = model(*parts, times), model(*pads, late, mask)
    assert all(part.isfinite().all() for part in among)
    for a, b in zip(alone, among, strict=True):
        torch.testing.assert_close(b[:, padded:], a, atol=1e-5, rtol=1e-5)


def test_a_step_sees_neither_its_action_nor_what_follows() -> None:
    torch.manual_seed(0)
    model = PIDT(PIDTConfig(state_dim=5, actions=4, dim=8, steps=8)).eval()
    parts = [torch.randn(1, 4, 5), torch.randn(1, 4, 4), torch.rand(1, 4, 1)]
    times = torch.arange(4)[None]
    before = model(*parts, times).actions[:, 2]
    parts[1][:, 2:] += 1
    parts[0][:, 3] += 1
    assert model(*parts, times).actions[:, 2].equal(before)
    parts[0][:, 2] += 1
    assert not model(*parts, times).actions[:, 2].equal(before)


def test_the_ways_of_physics_in_the_loss() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    target, feasible = torch.tensor([1]), torch.tensor([[False, True, True]])
    chance = logits.softmax(-1)[0]
    ways = {"none": {"mask": False}, "mask": {}, "penalty": {"mask": False, "penalty": 2.0}}
    models = {name: PIDT(replace(TINY, actions=3, **way)) for name, way in ways.items()}
    found = {name: model.loss(logits, target, feasible).item() for name, model in models.items()}
    assert found["none"] == pytest.approx(-chance[1].log().item())
    assert found["mask"] == pytest.approx(-(chance[1] / chance[1:].sum()).log().item())
    assert found["penalty"] == pytest.approx(found["none"] + 2 * chance[0].item())
    # What reckless data did although it was not feasible still has a finite loss.
    assert models["mask"].loss(logits, torch.tensor([0]), feasible).isfinite()


def test_behaviour_data(data: Trajectories, tmp_path: Path) -> None:
    assert len(data) == 12
    data.save(tmp_path / "data.npz")
    again = Trajectories.load(tmp_path / "data.npz")
    assert all((getattr(again, n) == value).all() for n, value in vars(data).items())
    for start, stop in data.bounds():
        assert data.returns_to_go()[start] == pytest.approx(
            data.rewards[start:stop].sum(), abs=1e-6
        )
    assert data.masks[:, -1].all()
    assert (data.masks[np.arange(len(data.actions)), data.actions] == (data.rewards >= 0)).all()
    with pytest.raises(ValueError, match="no policy clever; there is optimal"):
        collect([], mixture={"clever": 1.0})
    with pytest.raises(ValueError, match="no problems to collect from"):
        collect([])


def test_damaged_data_is_named(data: Trajectories, tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    with pytest.raises(FileNotFoundError, match="no trajectories at"):
        Trajectories.load(file)
    data.save(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"is damaged or not an \.npz file"):
        Trajectories.load(file)
    with file.open("wb") as stream:
        np.savez(stream, actions=data.actions)
    with pytest.raises(ValueError, match="no observations, rewards, terminals, masks, contexts"):
        Trajectories.load(file)
    fields = vars(data)
    for change, message in (
        ({"rewards": data.rewards[:-1]}, "rewards has"),
        ({"terminals": ~data.terminals}, "the last step of trajectories must be terminal"),
        ({"rewards": data.rewards * np.nan}, "rewards: not finite"),
        ({"actions": data.actions + 20}, "actions must be 0 to 15"),
        ({"contexts": data.contexts[1:]}, "11 contexts, 12 episodes"),
    ):
        with pytest.raises(ValueError, match=message):
            Trajectories(**{**fields, **change})


def test_sequences_fit_the_model(data: Trajectories) -> None:
    sequences = Sequences(data, replace(TINY, feature=True, state_dim=107))
    states, actions, returns, times, masks, present = sequences[0]
    first = int(present.int().argmax())
    assert present[first:].all()
    assert times[-1] == present.sum() - 1
    assert states[first, -16:].bool().equal(masks[first])
    assert returns[first] == pytest.approx(data.returns_to_go()[0])
    assert actions[present].tolist() == data.actions[: int(present.sum())].tolist()
    for change, message in (
        ({"steps": 1}, "an episode has"),
        ({"actions": 5}, "the data has 16 actions, the model 5"),
        ({"state_dim": 90}, "the data has states of 91 numbers, the model 90"),
    ):
        with pytest.raises(ValueError, match=message):
            Sequences(data, replace(TINY, **change))


def test_training_imitates_and_the_mask_rules_out(data: Trajectories) -> None:
    torch.manual_seed(0)
    model = PIDT(replace(TINY, dropout=0.0))
    losses = fit(model, data, steps=40, batch_size=8, lr=3e-3)
    assert losses[-1] < 0.8 * losses[0]
    outages = list(reference_scenarios().many(3, seed=9))
    plans = roll_out(model, outages, [0.1, 0.3, 0.5])
    assert sum(plan.refused for plan in plans) == 0
    alone = [restore(outage, model, t) for outage, t in zip(outages, (0.1, 0.3, 0.5), strict=True)]
    assert [p.steps for p in alone] == [p.steps for p in plans]
    assert sum(plan.refused for plan in roll_out(model, outages, 0.5, masked=False)) > 0


def test_a_model_of_another_feeder_is_refused() -> None:
    model = PIDT(TINY).eval()
    small = Restoration(ieee13(), None, {6: {}}, v_min=0.9, v_max=1.1)
    with pytest.raises(ValueError, match="it was trained on another feeder or other switches"):
        restore(small, model)
    with pytest.raises(ValueError, match="target return nan: must be finite"):
        restore(reference(), model, float("nan"))
    with pytest.raises(ValueError, match="horizon=15: the model knows episodes of at most 4 steps"):
        restore(reference(), PIDT(replace(TINY, steps=4)).eval())
    with pytest.raises(ValueError, match="the model has 9 actions, this problem 16"):
        restore(reference(), PIDT(replace(TINY, actions=9)).eval())


@pytest.mark.parametrize(
    "name", ["Restoration33", "RandomOutages33", "UncertainHorizon33", "Restoration13"]
)
def test_environments_keep_gymnasiums_contract(name: str) -> None:
    env = gymnasium.make(f"pidt.env:pidt/{name}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    observation, info = env.reset(seed=3)
    assert observation in env.observation_space
    assert info["feasible"].sum() <= info["valid"].sum()


def test_an_environment_plays_an_outage() -> None:
    problem = reference()
    env = RestorationEnv(sampler=constant(problem), feature=True, render_mode="ansi")
    _, info = env.reset(seed=0, options={"problem": problem})
    total, ended = 0.0, False
    while not ended:
        action = optimal(problem)(env.episode)
        observation, reward, terminated, truncated, info = env.step(action)
        assert (observation[-16:] == env.action_masks()).all()
        total, ended = total + reward, terminated or truncated
    assert info["restored_mw"] == pytest.approx(exact_optimum(problem).restored_mw)
    assert total == pytest.approx((2.600 - 1.390) / 3.715)
    assert "step 1: switch 6 (6-7) feeds buses 4-6" in env.render()
    with pytest.raises(ValueError, match="render_mode='human'"):
        RestorationEnv(sampler=constant(problem), render_mode="human")
    with pytest.raises(ValueError, match="give a feeder with its sources, or a sampler"):
        RestorationEnv()


@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
def test_agents_of_stable_baselines(algorithm: str) -> None:
    from pidt.baselines import agent_policy, learn

    torch.set_num_threads(1)
    settings = {"learning_starts": 20} if algorithm == "dqn" else {"n_steps": 32, "batch_size": 32}
    agent = learn(RestorationEnv(sampler=constant(reference())), algorithm, 40, **settings)
    plan = play(reference(), agent_policy(agent, context=False, masked=True))
    assert plan.done
    assert plan.refused == 0
    with pytest.raises(ValueError, match="algorithm='a2c': must be one of dqn, ppo"):
        learn(None, "a2c", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads=3: must divide dim=16"),
        ({"activation": "swish"}, "activation='swish': must be one of 'relu'"),
        ({"penalty": -1.0}, "penalty=-1.0: must be finite and at least 0"),
        ({"inner": 0}, "inner=0: must be None or an integer of at least 1"),
    ],
)
def test_bad_sizes_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(TINY, **change)


@pytest.mark.parametrize("name", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(name: str, tmp_path: Path) -> None:
    found = PAPER.claim(name).measure(Run(output=tmp_path))
    assert found.holds, found.measured


def test_slow_claims_run_on_a_small_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pidt import claims

    small = claims.Budget(outages=2, episodes=2, steps=2, tests=2)
    monkeypatch.setattr(claims, "QUICK", small)
    monkeypatch.setattr(claims, "CASES", 20)
    run = Run(output=tmp_path)
    assert claims.unseen_outages(run).numbers["table"]["columns"][0] == "policy"
    found = claims.ways_of_physics(run)
    assert [row[0] for row in found.numbers["table"]["rows"]] == list(claims.PHYSICS)
    assert len(claims.return_conditioning(run).numbers["shares"]) == 4
    assert 0 <= claims.always_optimal(run).numbers["optimal"] <= 1
    assert claims.power_flows(run).numbers["flows_per_s"]
    assert claims.decision_time(run).numbers["pandapower_s"] > 0
