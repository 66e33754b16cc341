"""Who writes learning histories: random agents, tabular Q-learning, Stable-Baselines3."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lhf.grids import ACTIONS, GridFamily, GridWorld
from lhf.histories import History, grid_history
from lhf.ppo import PPOConfig, published

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def random_agents(
    family: GridFamily, tasks: list[int], *, histories: int, steps: int, seed: int = 0
) -> dict[int, History]:
    """Histories of agents that act uniformly at random and never learn."""
    draw = np.random.default_rng(seed)

    def act(world: GridWorld) -> np.ndarray:
        return draw.integers(ACTIONS, size=world.shape, dtype=np.uint8)

    return _play(family, tasks, histories, steps, act)


def q_learning(
    family: GridFamily,
    tasks: list[int],
    *,
    histories: int,
    steps: int,
    seed: int = 0,
    rate: float = 0.5,
    gamma: float = 0.9,
    exploration: tuple[float, float] = (1.0, 0.05),
) -> dict[int, History]:
    """Histories of independent tabular Q-learners, all at once: seconds where PPO takes minutes.

    Args:
        family: of the tasks.
        tasks: their numbers.
        histories: learners of each task.
        steps: of each learner.
        seed: of the draws.
        rate: of learning.
        gamma: discount.
        exploration: share of random actions, at the start and from half of the steps on.
    """
    draw = np.random.default_rng(seed)
    value = np.zeros((len(tasks), histories, family.cells, ACTIONS), np.float32)
    value += 1e-3 * draw.random(value.shape, dtype=np.float32)  # equal actions in no fixed order
    task, copy = np.ogrid[: len(tasks), :histories]
    clock = 0

    def act(world: GridWorld) -> np.ndarray:
        start, end = exploration
        epsilon = max(end, start + (end - start) * 2 * clock / steps)
        explore = draw.random(world.shape) < epsilon
        anything = draw.integers(ACTIONS, size=world.shape)
        best = value[task, copy, world.cell].argmax(-1)
        return np.where(explore, anything, best).astype(np.uint8)

    def learn(cell: np.ndarray, action: np.ndarray, reward: np.ndarray, after: np.ndarray) -> None:
        nonlocal clock
        clock += 1
        later = value[task, copy, after].max(-1)
        place = task, copy, cell, action
        value[place] += rate * (reward + gamma * later - value[place])

    return _play(family, tasks, histories, steps, act, learn)


def _play(
    family: GridFamily,
    tasks: list[int],
    histories: int,
    steps: int,
    act: Callable[[GridWorld], np.ndarray],
    learn: Callable[..., None] | None = None,
) -> dict[int, History]:
    if steps < 1 or steps % family.horizon:
        raise ValueError(f"steps={steps}: must be a multiple of the horizon {family.horizon}")
    world = GridWorld(family, tasks, histories)
    log = {
        "cells": np.empty((steps, *world.shape), world.dtype),
        "actions": np.empty((steps, *world.shape), np.uint8),
        "rewards": np.empty((steps, *world.shape), np.uint8),
        "ends": np.empty((steps, *world.shape), world.dtype),
    }
    for step in range(steps):
        if step % family.horizon == 0:
            world.reset()
        before, action = world.cell, act(world)
        after, reward, _ = world.step(action)
        if learn is not None:
            learn(before, action, reward, after)
        for name, value in zip(log, (before, action, reward, after), strict=True):
            log[name][step] = value
    return {
        task: grid_history(family, task, **{name: value[:, i] for name, value in log.items()})
        for i, task in enumerate(tasks)
    }


def stable_baselines(
    family: GridFamily,
    task: int,
    *,
    histories: int = 100,
    steps: int = 1000,
    config: PPOConfig | None = None,
    seed: int = 0,
) -> History:
    """Histories of Stable-Baselines3's PPO on one task, as published (needs the extra ``sb3``)."""
    config = config or published(family)
    ppo = require_extra("stable_baselines3", "sb3").PPO
    environments = GridVecEnv(GridWorld(family, [task], histories))
    agent = ppo("MlpPolicy", environments, seed=seed + task, device="cpu", **vars(config))
    agent.learn(steps * histories)
    return environments.history(task)


def GridVecEnv(world: GridWorld) -> Any:  # noqa: N802 -- a class, made when SB3 is there
    """Stable-Baselines3's vector environment around a world; it keeps what happens."""
    import importlib

    require_extra("stable_baselines3", "sb3")
    vec = importlib.import_module("stable_baselines3.common.vec_env").VecEnv
    from lhf.environments import spaces_of

    class Grid(vec):  # type: ignore[misc]
        def __init__(self) -> None:
            names = ("cells", "actions", "rewards", "ends")
            self.log: dict[str, list[np.ndarray]] = {name: [] for name in names}
            super().__init__(world.cell.size, *spaces_of(world.family))

        def _observations(self) -> np.ndarray:
            return world.family.coordinates(world.cell.ravel())

        def reset(self) -> np.ndarray:
            world.reset()
            return self._observations()

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = actions.reshape(world.shape)

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            before = world.cell
            after, rewards, over = world.step(self.actions)
            for name, value in zip(self.log, (before, self.actions, rewards, after), strict=True):
                self.log[name].append(value)
            infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            if over:
                for info, last in zip(infos, self._observations(), strict=True):
                    info["terminal_observation"] = last
                world.reset()
            done = np.full(self.num_envs, over)
            return self._observations(), rewards.ravel().astype(np.float32), done, infos

        def history(self, task: int) -> History:
            log = {name: np.concatenate(value) for name, value in self.log.items()}
            return grid_history(world.family, task, **log)

        def close(self) -> None: ...

        def get_attr(self, name: str, indices: Any = None) -> list[Any]:
            return [getattr(self, name, None)] * self.num_envs

        def set_attr(self, name: str, value: Any, indices: Any = None) -> None:
            setattr(self, name, value)

        def env_method(self, name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
            raise NotImplementedError(name)

        def env_is_wrapped(self, wrapper: type, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

    return Grid()


def require_extra(module: str, extra: str) -> Any:
    """The module, or an error that names the extra which brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"this needs {missing.name}: install formers-lhf with its extra [{extra}]"
        ) from missing
