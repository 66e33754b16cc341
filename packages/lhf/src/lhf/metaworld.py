"""Meta-World's ML1 tasks (extra ``metaworld``): histories by Stable-Baselines3, and evaluation.

A task's environment costs about a millisecond a step, so the published million steps for each of
50 tasks is a job for a cluster.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lhf.histories import Histories, History, write_histories
from lhf.sources import require_extra

HORIZON = 100
BEST = 1000.0
"""100 steps of at most 10: the paper does not state R_max, DICP's plots end there."""
OBSERVED = 11
WIDE = ("hammer", "stick-push", "stick-pull")
"""Tasks of which the first 18 numbers of the observation count, not 11."""
PPO: dict[str, Any] = {"n_steps": 100, "batch_size": 200, "n_epochs": 20}
SAC: dict[str, Any] = {
    "train_freq": 1, "gradient_steps": 10, "learning_starts": 100, "buffer_size": 1_000_000,
    "batch_size": 128,
}  # fmt: skip
Array = np.ndarray


def observed(name: str) -> int:
    """How many numbers of the observation a learner reads."""
    return 18 if name.rsplit("-", 1)[0] in WIDE else OBSERVED


class Tasks:
    """ML1 tasks side by side; a world for ``evaluate_in_context``.

    Args:
        name: of the task, ``reach-v3``.
        split: ``train`` or ``test``.
        indices: which of the 50.
        seed: of Meta-World.
        horizon: steps of an episode.
    """

    def __init__(
        self,
        name: str = "reach-v3",
        split: str = "test",
        indices: Iterable[int] = range(10),
        seed: int = 0,
        horizon: int = HORIZON,
    ) -> None:
        metaworld = require_extra("metaworld", "metaworld")
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r}: must be 'train' or 'test'")
        if name not in metaworld.ML1.ENV_NAMES:
            raise ValueError(f"env={name!r}: Meta-World has {', '.join(metaworld.ML1.ENV_NAMES)}")
        benchmark = metaworld.ML1(name, seed=seed)
        tasks = getattr(benchmark, f"{split}_tasks")
        self.horizon, self.width = horizon, observed(name)
        self.worlds = []
        for index in indices:
            world = getattr(benchmark, f"{split}_classes")[name]()
            world.set_task(tasks[index])
            self.worlds.append(world)
        self.best = np.full(len(self.worlds), BEST)
        self.success = np.zeros(len(self.worlds), bool)

    def start(self) -> Array:
        self.success[:] = False
        return np.stack([world.reset()[0] for world in self.worlds])[:, : self.width]

    def act(self, actions: Array) -> tuple[Array, Array]:
        space = self.worlds[0].action_space
        stepped = [
            world.step(np.clip(action, space.low, space.high))
            for world, action in zip(self.worlds, actions, strict=True)
        ]
        self.success |= np.array([bool(step[4]["success"]) for step in stepped])
        return (
            np.stack([step[0] for step in stepped])[:, : self.width],
            np.array([step[1] for step in stepped]),
        )


def collect(
    name: str,
    out: str | Path,
    *,
    source: str = "ppo",
    histories: int = 100,
    steps: int = 10_000,
    tasks: Iterable[int] = range(50),
    split: str = "train",
    seed: int = 0,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda steps, text: steps,
) -> Path:
    """Histories of one ML1 task's goals by Stable-Baselines3, in the DICP code's layout.

    Args:
        name: of the task.
        out: the HDF5 file.
        source: ``ppo`` or ``sac``.
        histories: parallel environments of one agent.
        steps: of each.
        tasks: which of the 50 goals.
        split: ``train`` or ``test``.
        seed: of the agents; the goal's number is added.
        progress: wraps the goals in a progress bar.
    """
    if source not in ("ppo", "sac"):
        raise ValueError(f"source={source!r}: for Meta-World it must be 'ppo' or 'sac'")
    found = {
        task: _learn(name, task, split, source, histories, steps, seed + task)
        for task in progress(list(tasks), name)
    }
    return write_histories(out, Histories(name, found, HORIZON, best=BEST, source=f"sb3_{source}"))


def _learn(
    name: str, task: int, split: str, source: str, histories: int, steps: int, seed: int
) -> History:
    sb3 = require_extra("stable_baselines3", "metaworld")
    from gymnasium.wrappers import TimeLimit
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv

    log: dict[str, list[Array]] = {
        key: [] for key in ("states", "actions", "rewards", "next_states", "dones", "success")
    }

    class Log(BaseCallback):
        before: Array

        def _on_step(self) -> bool:
            seen, width = self.locals, observed(name)
            after = seen["new_obs"].copy()
            for i, info in enumerate(seen["infos"]):
                if seen["dones"][i]:
                    after[i] = info["terminal_observation"]
            log["states"].append(self.before[:, :width])
            log["next_states"].append(after[:, :width])
            log["actions"].append(seen["actions"])
            log["rewards"].append(seen["rewards"].copy())
            log["dones"].append(seen["dones"].copy())
            log["success"].append(np.array([info["success"] for info in seen["infos"]]))
            self.before = seen["new_obs"].copy()
            return True

        def _on_training_start(self) -> None:
            last: Any = self.model._last_obs
            self.before = last.copy()

    def make() -> Any:
        return TimeLimit(Tasks(name, split, [task]).worlds[0], HORIZON)

    environments = DummyVecEnv([make] * histories)
    settings = PPO if source == "ppo" else SAC
    learner = getattr(sb3, source.upper())(
        "MlpPolicy", environments, learning_rate=3e-4, seed=seed, device="cpu", **settings
    )
    learner.learn(steps * histories, callback=Log())
    return History(**{key: np.stack(value).astype(np.float32) for key, value in log.items()})
