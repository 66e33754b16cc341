"""The grids as gymnasium environments; importing this module registers them.

``gymnasium.make("lhf.environments:lhf/Darkroom-v0", goal=(2, 7))`` is one task;
``gymnasium.make_vec(..., vectorization_mode="vector_entry_point", tasks=[0, 5], copies=100)`` steps
many at once.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from lhf.grids import ACTIONS, GridFamily, GridWorld, family

IDS = {
    "lhf/Darkroom-v0": "darkroom",
    "lhf/DarkroomPermuted-v0": "darkroom_permuted",
    "lhf/DarkroomLarge-v0": "darkroom_large",
    "lhf/DarkKeyToDoor-v0": "key_to_door",
}


class GridEnv(gymnasium.Env):
    """One task. Observation: (row, column); ends by its horizon alone, which counts as terminal.

    Args:
        env: name of the family.
        goal: (row, column) of a darkroom; by default the last cell.
        key: of key-to-door, with ``door``; by default the first and the last cell.
        door: see ``key``.
        permutation: number of the permutation of the actions, in lexicographic order.
        size: another size of the grid.
        horizon: another length of the episode.

    Raises:
        ValueError: for a place outside the grid, or a permutation of 120 or more.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 -- gymnasium's own way

    def __init__(
        self,
        env: str = "darkroom",
        goal: Sequence[int] | None = None,
        key: Sequence[int] | None = None,
        door: Sequence[int] | None = None,
        permutation: int = 0,
        size: int | None = None,
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.family = grids = family(env, size=size, horizon=horizon)
        last = (grids.size - 1, grids.size - 1)
        match grids.kind:
            case "permuted":
                self.task = permutation
            case "key_to_door":
                self.task = grids.task(*(key or (0, 0)), *(door or last))
            case _:
                self.task = grids.task(*(last if goal is None else goal))
        self.world = GridWorld(grids, [self.task])
        self.observation_space, self.action_space = spaces_of(grids)
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.world.reset()
        return self._observation(), {}

    def step(
        self, action: int | np.integer
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, reward, done = self.world.step(np.array([[action]]))
        return self._observation(), float(reward[0, 0]), done, done, {}

    def render(self) -> str | None:
        """The grid as text: ``@`` is the agent."""
        if self.render_mode != "ansi":
            return None
        row, column = self._observation()
        return "\n".join(
            "".join("@" if (i, j) == (row, column) else "." for j in range(self.family.size))
            for i in range(self.family.size)
        )

    def best_action(self) -> int:
        """The optimal action now."""
        return int(self.world.best_actions()[0, 0])

    def _observation(self) -> np.ndarray:
        return self.family.coordinates(self.world.cell)[0, 0]


class GridVectorEnv(VectorEnv):
    """Copies of many tasks, task-major; all end together and start again in the same step.

    Args:
        env: name of the family.
        tasks: their numbers; by default those to train on.
        copies: of each task.
        size: another size of the grid.
        horizon: another length of the episode.
    """

    def __init__(
        self,
        num_envs: int | None = None,
        env: str = "darkroom",
        tasks: Sequence[int] | None = None,
        copies: int = 1,
        size: int | None = None,
        horizon: int | None = None,
    ) -> None:
        self.family = grids = family(env, size=size, horizon=horizon)
        chosen = grids.split()[0] if tasks is None else tasks
        self.world = GridWorld(grids, chosen, copies)
        self.num_envs = self.world.cell.size
        if num_envs not in (None, 1, self.num_envs):
            raise ValueError(f"num_envs={num_envs}: the tasks and copies make {self.num_envs}")
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = spaces_of(grids)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.world.reset()
        return self._observations(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        _, rewards, done = self.world.step(np.asarray(actions).reshape(self.world.shape))
        ended, infos = np.full(self.num_envs, done), {}
        if done:
            infos = {"final_obs": self._observations(), "_final_obs": ended}
            self.world.reset()
        return self._observations(), rewards.ravel().astype(float), ended, ended.copy(), infos

    def _observations(self) -> np.ndarray:
        return self.family.coordinates(self.world.cell.ravel())


def spaces_of(grids: GridFamily) -> tuple[spaces.Box, spaces.Discrete]:
    """Observations and actions of a family."""
    return spaces.Box(0, grids.size - 1, (2,), np.int32), spaces.Discrete(ACTIONS)


for _id, _name in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point="lhf.environments:GridEnv",
            vector_entry_point="lhf.environments:GridVectorEnv",
            kwargs={"env": _name},
        )
