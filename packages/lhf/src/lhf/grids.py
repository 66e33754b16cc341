"""Darkrooms as tables: every task of a family, and any number of copies, in one array step.

A cell is one number, row · size + column; a step is one look-up. ``lhf.environments`` wraps these
worlds for gymnasium.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from attention_core import require, require_choice, require_positive

ACTIONS = 5
"""Row + 1, row - 1, column + 1, column - 1, stay."""
MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
PERMUTATIONS = np.array(list(itertools.permutations(range(ACTIONS))))
INVERSES = np.argsort(PERMUTATIONS, 1)
KINDS = ("darkroom", "permuted", "key_to_door")

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class GridFamily:
    """A family of tasks on a square grid; ``FAMILIES`` are the paper's (Sec. 4, Appendix).

    Kinds: in ``darkroom`` each step that ends on the goal pays 1; in ``permuted`` the goal is the
    last cell, the start the first one, and the actions are permuted; in ``key_to_door`` the key
    pays 1 once, and after it the door.
    """

    kind: str = "darkroom"
    size: int = 9
    horizon: int = 20
    train_share: float = 0.9
    split_seed: int = 0

    def __post_init__(self) -> None:
        require_choice(self, "kind", KINDS)
        require_positive(self, "size", "horizon")
        require(self, "train_share", 0 < self.train_share <= 1, "must be in (0, 1]")

    @property
    def cells(self) -> int:
        return self.size**2

    @property
    def start(self) -> int:
        """The cell where every episode begins."""
        return 0 if self.kind == "permuted" else (self.size // 2) * (self.size + 1)

    @property
    def count(self) -> int:
        """Number of tasks."""
        counts = (self.cells, len(PERMUTATIONS), self.cells**2)
        return counts[KINDS.index(self.kind)]

    @property
    def planning_depth(self) -> int:
        """Levels that DICP's planner looks ahead at most."""
        return (self.size - 1) * (1 if self.kind == "darkroom" else 2)

    def split(self) -> tuple[list[int], list[int]]:
        """Task numbers to train on and to test on, shuffled as the authors shuffle them."""
        tasks = list(range(self.count))
        random.Random(self.split_seed).shuffle(tasks)
        train = round(self.count * self.train_share)
        return tasks[:train], tasks[train:]

    def describe(self, task: int) -> tuple[int, ...]:
        """What sets a task apart: goal, permutation, or key and door, as (row, column, ...)."""
        self.require_tasks([task])
        if self.kind == "permuted":
            return tuple(PERMUTATIONS[task].tolist())
        cells = divmod(task, self.cells) if self.kind == "key_to_door" else (task,)
        return tuple(part for cell in cells for part in divmod(cell, self.size))

    def task(self, *place: int) -> int:
        """The number of the task with this goal (row, column), or key and door.

        Raises:
            ValueError: for a place outside the grid.
        """
        if len(place) != (4 if self.kind == "key_to_door" else 2) or self.kind == "permuted":
            raise ValueError(f"place={place!r}: not what tells a task of {self.kind!r}")
        if not all(0 <= part < self.size for part in place):
            raise ValueError(f"goal {place!r} is outside the {self.size} x {self.size} grid")
        number = 0
        for part in place:
            number = number * self.size + int(part)
        return number

    def require_tasks(self, tasks: Sequence[int] | Array) -> None:
        """Raise ``ValueError`` naming the first number that is no task of the family."""
        for task in tasks:
            if not 0 <= task < self.count:
                raise ValueError(f"task={task}: {self.kind!r} has the tasks 0 to {self.count - 1}")

    def best_return(self, tasks: Sequence[int] | Array) -> Array:
        """The largest return of an episode in each task (R_max)."""
        self.require_tasks(tasks)
        if self.kind == "key_to_door":
            return np.full(len(tasks), 2.0)
        goal = np.full(len(tasks), self.cells - 1) if self.kind == "permuted" else np.array(tasks)
        places = zip(self.place(goal), self.place(self.start), strict=True)
        distance = sum(abs(a - b) for a, b in places)
        return np.clip(self.horizon + 1.0 - distance, 0, self.horizon)

    def place(self, cell: Any) -> tuple[Any, Any]:
        """Row and column of a cell, or of an array of them."""
        return cell // self.size, cell % self.size

    def coordinates(self, cells: Array) -> Array:
        """The observation of cells: (row, column) as the last axis, int32."""
        return np.stack(self.place(cells.astype(np.int32)), -1)

    def neighbours(self) -> Array:
        """The cell that each action leads to, [actions, cells]."""
        place = np.stack(self.place(np.arange(self.cells)), -1)
        row, column = np.moveaxis(np.clip(place + MOVES[:, None], 0, self.size - 1), -1, 0)
        return row * self.size + column


FAMILIES = {
    "darkroom": GridFamily(),
    "darkroom_permuted": GridFamily(kind="permuted", horizon=50, split_seed=4),
    "darkroom_large": GridFamily(size=15, horizon=50),
    "key_to_door": GridFamily(kind="key_to_door", horizon=50, train_share=0.95, split_seed=4),
}


def family(name: str, **changes: Any) -> GridFamily:
    """One of ``FAMILIES``, changed.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in FAMILIES:
        raise ValueError(f"env={name!r}: must be one of {', '.join(FAMILIES)}")
    return replace(FAMILIES[name], **{k: v for k, v in changes.items() if v is not None})


class GridWorld:
    """Copies of tasks, all stepped at once.

    Args:
        family: of the tasks.
        tasks: their numbers; row i of every array belongs to ``tasks[i]``.
        copies: parallel episodes of each task.

    Attributes:
        cell: where each copy stands, [tasks, copies].
        clock: steps taken in the episode.
    """

    def __init__(self, family: GridFamily, tasks: Sequence[int], copies: int = 1) -> None:
        family.require_tasks(tasks)
        if not len(tasks) or copies < 1:
            raise ValueError(
                f"tasks={list(tasks)}, copies={copies}: at least one of each is needed"
            )
        self.family, self.tasks = family, np.asarray(tasks)
        self.shape = (len(tasks), copies)
        self.dtype = np.uint8 if family.cells <= 256 else np.uint32
        self.horizon = family.horizon
        # One look-up per step: at (action * cells + cell), permuted tasks each in their own table.
        table = family.neighbours().astype(self.dtype)
        goal = self.tasks
        base = np.zeros(len(tasks), int)
        if family.kind == "permuted":
            table = table[PERMUTATIONS]
            base, goal = self.tasks * ACTIONS * family.cells, np.full(len(tasks), family.cells - 1)
        elif family.kind == "key_to_door":
            self.key, goal = np.divmod(self.tasks, family.cells)
        self._table = table.ravel()
        self._index = np.uint16 if self._table.size <= 2**16 else np.uint32
        self._base = base.astype(self._index)[:, None]
        self.goal = goal.astype(self.dtype)[:, None]
        self.reset()

    def reset(self) -> Array:
        """Begin an episode in every copy; returns the cells."""
        self.clock = 0
        self.cell = np.full(self.shape, self.family.start, self.dtype)
        if self.family.kind == "key_to_door":
            self.paid = np.zeros(self.shape, np.uint8)
            self._target = np.repeat(self.key.astype(np.int32)[:, None], self.shape[1], 1)
        return self.cell

    def step(self, actions: Array) -> tuple[Array, Array, bool]:
        """Cells and rewards, [tasks, copies], after ``actions``, and whether the episode is over.

        Raises:
            ValueError: after the end of the episode, or for an action outside 0 to 4.
        """
        if self.clock >= self.horizon:
            raise ValueError(f"the episode ended after {self.horizon} steps: reset it first")
        actions = np.asarray(actions)
        if actions.shape != self.shape:
            raise ValueError(f"actions of shape {actions.shape}: there are {self.shape} copies")
        if actions.dtype != np.uint8:
            if actions.dtype.kind not in "iu" or ((actions < 0) | (actions >= ACTIONS)).any():
                raise ValueError(f"actions must be integers from 0 to {ACTIONS - 1}")
            actions = actions.astype(np.uint8)
        elif actions.size and actions.max() >= ACTIONS:
            raise ValueError(f"actions must be integers from 0 to {ACTIONS - 1}")
        self.clock += 1
        index = np.multiply(actions, self.family.cells, dtype=self._index)
        index += self.cell
        if self.family.kind == "permuted":
            index += self._base
        self.cell = self._table.take(index, mode="clip")  # never out of range: no bounds to check
        return self.cell, self._reward(), self.clock >= self.horizon

    def _reward(self) -> Array:
        if self.family.kind != "key_to_door":
            return self.cell == self.goal
        reward = self.cell == self._target
        if reward.any():
            self.paid += reward
            nothing = np.int32(-1)
            goal = np.broadcast_to(self.goal, self.shape)[reward]
            self._target[reward] = np.where(self.paid[reward] == 1, goal.astype(np.int32), nothing)
        return reward

    def best_actions(self) -> Array:
        """The optimal action of every copy: rows first, then columns, else stay."""
        goal = np.broadcast_to(self.goal, self.shape)
        if self.family.kind == "key_to_door":
            goal = np.where(self.paid > 0, goal, self.key[:, None])
        return toward(self.family, self.tasks[:, None], self.cell, goal)


def toward(family: GridFamily, tasks: Array, cells: Array, goals: Array) -> Array:
    """The action that leads from ``cells`` toward ``goals``, rows first; arrays broadcast."""
    row, column = family.place(cells.astype(np.int32))
    to_row, to_column = family.place(goals.astype(np.int32))
    conditions = [row < to_row, row > to_row, column < to_column, column > to_column]
    action = np.select(conditions, [0, 1, 2, 3], 4)
    if family.kind == "permuted":
        action = INVERSES[tasks, action]
    return action.astype(np.uint8)


def best_actions(family: GridFamily, task: int, states: Array, rewards: Array) -> Array:
    """Optimal actions along histories of one task.

    Args:
        family: of the task.
        task: its number.
        states: (row, column), [steps, histories, 2].
        rewards: [steps, histories]; in key-to-door the first one of an episode is the key.
    """
    cells = states[..., 0] * family.size + states[..., 1]
    if family.kind == "permuted":
        goals: Any = np.full_like(cells, family.cells - 1)
    elif family.kind == "key_to_door":
        key, door = divmod(task, family.cells)
        episodes = rewards.reshape(-1, family.horizon, rewards.shape[1])
        before = episodes.cumsum(1) - episodes
        goals = np.where(before.reshape(rewards.shape) > 0, door, key)
    else:
        goals = np.full_like(cells, task)
    return toward(family, np.array(task), cells, goals)
