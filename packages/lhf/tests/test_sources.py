"""Source algorithms: batched PPO against Stable-Baselines3, Q-learning, collection in parts."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lhf import GridWorld, read_histories, sources
from lhf.collect import Order, collect
from lhf.filtering import episode_returns
from lhf.ppo import BatchedPPO, PPOConfig, Rollout
from lhf.ppo import collect as collect_ppo


def test_an_update_is_that_of_stable_baselines(small) -> None:
    """Same weights, same rollout, same minibatches: the same weights after all epochs."""
    from stable_baselines3 import PPO

    config = PPOConfig(n_steps=10, batch_size=20, n_epochs=3, learning_rate=3e-3)
    task, copies = 7, 8
    theirs = PPO(
        "MlpPolicy", sources.GridVecEnv(GridWorld(small, [task], copies)), seed=3, device="cpu",
        **vars(config),
    )  # fmt: skip
    ours = BatchedPPO(GridWorld(small, [task, task], copies), config)
    policy = theirs.policy
    layers = [
        [policy.mlp_extractor.policy_net[0], policy.mlp_extractor.policy_net[2], policy.action_net],
        [policy.mlp_extractor.value_net[0], policy.mlp_extractor.value_net[2], policy.value_net],
    ]
    with torch.no_grad():
        for net in range(2):
            for i, layer in enumerate(layers[net]):
                width = layer.out_features
                for agent in (0, 1):
                    place = net * 2 + agent
                    ours.agents.layers[2 * i][place, :, :width] = layer.weight.T
                    ours.agents.layers[2 * i + 1][place, 0, :width] = layer.bias
    theirs._setup_learn(1)
    theirs.collect_rollouts(theirs.env, _quiet(theirs), theirs.rollout_buffer, 10)
    buffer = theirs.rollout_buffer
    cells = torch.from_numpy(buffer.observations @ np.array([5, 1])).long()

    def twice(x: torch.Tensor) -> torch.Tensor:
        return x[:, None].expand(-1, 2, -1).clone()

    with torch.no_grad():
        rollout = Rollout(
            cells=twice(cells),
            actions=twice(torch.from_numpy(buffer.actions[..., 0]).long()),
            log_probs=twice(torch.from_numpy(buffer.log_probs)),
            values=twice(torch.from_numpy(buffer.values)),
            rewards=twice(torch.from_numpy(buffer.rewards)),
            ends=twice(cells),
            over=[False] * 9 + [True],
        )
        advantage = ours.advantages(rollout)[:, 1]
        torch.testing.assert_close(advantage, torch.from_numpy(buffer.advantages))
        np.random.seed(5)  # noqa: NPY002 -- SB3 draws its minibatches so
        orders = [np.random.permutation(80) for _ in range(3)]  # noqa: NPY002
        queue = iter(orders)
        ours.learn(rollout, lambda: torch.from_numpy(next(queue)).expand(2, -1))
    np.random.seed(5)  # noqa: NPY002
    theirs.train()
    for net in range(2):
        for i, layer in enumerate(layers[net]):
            width = layer.out_features
            found = ours.agents.layers[2 * i][net * 2 + 1, :, :width].T
            torch.testing.assert_close(found, layer.weight.detach(), atol=1e-5, rtol=1e-4)
            bias = ours.agents.layers[2 * i + 1][net * 2 + 1, 0, :width]
            torch.testing.assert_close(bias, layer.bias.detach(), atol=1e-5, rtol=1e-4)


def _quiet(agent):
    from stable_baselines3.common.callbacks import ConvertCallback

    callback = ConvertCallback(lambda *_: True)
    callback.init_callback(agent)
    return callback


def test_batched_ppo_learns(small) -> None:
    config = PPOConfig(n_steps=10, batch_size=40, n_epochs=10, learning_rate=3e-3)
    found = collect_ppo(small, [7, 17], histories=20, steps=150, config=config)
    for task, history in found.items():
        returns = episode_returns(history.rewards, 10)
        assert returns.shape == (20, 15)
        assert returns[:, -3:].mean() > 0.5 * small.best_return([task])[0]
        follows = history.next_states[:-1] == history.states[1:]
        assert follows.all(-1)[~history.dones[:-1]].all()
        assert (history.states[::10] == 2).all()


def test_stable_baselines_writes_histories(small) -> None:
    config = PPOConfig(n_steps=10, batch_size=20, n_epochs=1)
    history = sources.stable_baselines(small, 7, histories=4, steps=20, config=config)
    assert history.states.shape == (20, 4, 2)
    moved = np.abs(history.next_states - history.states).sum(-1)
    assert moved.max() == 1


def test_q_learning_improves_and_random_agents_do_not(small) -> None:
    size = {"histories": 20, "steps": 400}
    learned = sources.q_learning(small, [7, 17], **size)
    noise = sources.random_agents(small, [7, 17], **size)
    for task in (7, 17):
        returns = episode_returns(learned[task].rewards, 10)
        assert returns[:, -5:].mean() > 2 * returns[:, :5].mean() + 1
        still = episode_returns(noise[task].rewards, 10)
        assert still.mean() < 0.3 * small.best_return([task])[0]


def order(small, **changes) -> Order:
    settings = {"env": "darkroom", "family": small, "tasks": (3, 1, 8), "source": "random"}
    return Order(**{**settings, "histories": 4, "steps": 20, "part": 2, **changes})


def test_collection_goes_on_after_a_kill(small, tmp_path: Path, monkeypatch) -> None:
    whole = read_histories(collect(order(small), tmp_path / "whole.h5"))
    assert list(whole.tasks) == [1, 3, 8]
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]

    real, done = sources.random_agents, []

    def killed(family, tasks, **options):
        if done:
            raise KeyboardInterrupt
        done.append(tasks)
        return real(family, tasks, **options)

    monkeypatch.setattr(sources, "random_agents", killed)
    with pytest.raises(KeyboardInterrupt):
        collect(order(small), tmp_path / "h.h5")
    assert not (tmp_path / "h.h5").exists()
    done.clear()
    monkeypatch.setattr(sources, "random_agents", real)
    with pytest.raises(ValueError, match="holds parts of another collection"):
        collect(order(small, seed=1), tmp_path / "h.h5")
    again = read_histories(collect(order(small), tmp_path / "h.h5"))
    for task, history in whole.tasks.items():
        assert (history.actions == again.tasks[task].actions).all()


@pytest.mark.slow
def test_processes_collect_what_one_does(small, tmp_path: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    one = read_histories(collect(order(small), tmp_path / "one.h5"))
    two = read_histories(collect(order(small), tmp_path / "two.h5", processes=2))
    assert all((one.tasks[t].actions == two.tasks[t].actions).all() for t in one.tasks)


def test_orders_and_extras_are_named(small, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="source='dqn': must be one of 'ppo'"):
        order(small, source="dqn")
    with pytest.raises(ValueError, match="no tasks"):
        order(small, tasks=())
    with pytest.raises(ValueError, match="task=25"):
        order(small, tasks=(25,))
    with pytest.raises(ValueError, match="processes=0"):
        collect(order(small), tmp_path / "h.h5", processes=0)
    with pytest.raises(ValueError, match="steps=15: must be a multiple of the horizon 10"):
        sources.random_agents(small, [0], histories=2, steps=15)
    with pytest.raises(ValueError, match="must divide n_steps"):
        BatchedPPO(GridWorld(small, [0], 3), PPOConfig(n_steps=10, batch_size=7))
    for module, extra, call in (
        ("stable_baselines3", "sb3", lambda: sources.stable_baselines(small, 0)),
        ("ray", "ray", lambda: collect(order(small), tmp_path / "r.h5", ray=True)),
        ("metaworld", "metaworld", _metaworld),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ModuleNotFoundError, match=rf"needs {module}.*extra \[{extra}\]"):
            call()


def _metaworld() -> None:
    from lhf.metaworld import Tasks

    Tasks()
