"""Learning histories, and the HDF5 files of the field.

A file has one group per task, named by its number, with ``states`` and ``next_states`` (steps,
histories, dims), ``actions``, ``rewards`` and ``dones`` (steps, histories), and for DPT
``optimal_actions`` (histories, steps). Meta-World's have floating numbers and ``success`` instead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from attention_core import atomic_path

from lhf.grids import FAMILIES, GridFamily, best_actions

Array = np.ndarray
_ATTRIBUTES = ("env", "horizon", "kind", "size", "train_share", "split_seed", "source")


@dataclass(frozen=True, eq=False)
class History:
    """The histories of one environment: whole training logs side by side."""

    states: Array
    """[steps, histories, dims]."""
    actions: Array
    """[steps, histories], or [steps, histories, dims]."""
    rewards: Array
    next_states: Array
    """Where the actions led; at an episode's end the terminal state, unless the file is one of the
    authors' logs, which hold the next start state there."""
    dones: Array
    optimal_actions: Array | None = None
    """[histories, steps]: the one axis order that differs, as in the field's files."""
    success: Array | None = None

    def __post_init__(self) -> None:
        shape = self.rewards.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"rewards of shape {shape}: must be (steps, histories), none empty")
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = shape[::-1] if field.name == "optimal_actions" else shape
            if value is not None and value.shape[:2] != wanted:
                raise ValueError(f"{field.name} of shape {value.shape}: must begin with {wanted}")

    def __len__(self) -> int:
        return self.rewards.shape[1]

    @property
    def steps(self) -> int:
        return self.rewards.shape[0]

    def select(self, indices: Array) -> "History":
        """The histories of these indices, which may repeat."""
        return self._map(lambda value, axis: value.take(indices, 1 - axis))

    def cut(self, steps: int) -> "History":
        """The first ``steps`` of every history."""
        return self._map(lambda value, axis: value.take(range(steps), axis))

    def _map(self, change: Any) -> "History":
        """``change(value, axis of the steps)`` of every field."""
        changed = {
            field.name: change(value, int(field.name == "optimal_actions"))
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return History(**changed)


@dataclass(frozen=True, eq=False)
class Histories:
    """Histories of many environments.

    Attributes:
        env: name of the family (``darkroom``, ..., or Meta-World's ``reach-v3``).
        tasks: task number -> its histories.
        horizon: steps of every episode.
        grid: the family, where it is one of grids.
        best: the largest return of an episode, for families that are not grids.
        source: what acted, for the record.
    """

    env: str
    tasks: Mapping[int, History]
    horizon: int
    grid: GridFamily | None = None
    best: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("no environment in these histories")
        if self.grid is not None:
            self.grid.require_tasks(list(self.tasks))

    def __len__(self) -> int:
        return sum(map(len, self.tasks.values()))

    def best_returns(self) -> dict[int, float]:
        """R_max of every task.

        Raises:
            ValueError: when it is unknown.
        """
        if self.grid is not None and self.best is None:
            values = self.grid.best_return(list(self.tasks))
            return dict(zip(self.tasks, values.tolist(), strict=True))
        if self.best is None:
            raise ValueError(f"best=None: the largest return of {self.env!r} must be given")
        return dict.fromkeys(self.tasks, float(self.best))

    def select(self, indices: Mapping[int, Array]) -> "Histories":
        """Each task's histories of these indices."""
        return self.map(lambda task, history: history.select(indices[task]))

    def map(self, change: Any) -> "Histories":
        """The same with ``change(task, history)`` as the histories of every task."""
        tasks = {task: change(task, history) for task, history in self.tasks.items()}
        return replace(self, tasks=tasks)

    def only(self, tasks: Iterable[int]) -> "Histories":
        """The histories of those of ``tasks`` that are here."""
        return replace(self, tasks={t: self.tasks[t] for t in tasks if t in self.tasks})

    def shorten(self, share: float = 0.5) -> "Histories":
        """The first ``share`` of the episodes of every history (partial data, Appendix)."""
        _require_share(share)
        return self.map(
            lambda task, history: history.cut(
                max(1, round(history.steps // self.horizon * share)) * self.horizon
            )
        )

    def first(self, share: float = 0.5) -> "Histories":
        """The first ``share`` of the histories of every environment (partial data, Sec. 4)."""
        _require_share(share)
        return self.map(
            lambda task, history: history.select(np.arange(max(1, round(len(history) * share))))
        )

    def mix(self, other: "Histories", share: float = 0.3, seed: int = 0) -> "Histories":
        """Replace a random ``share`` of each environment's histories by those of ``other``.

        With histories of random agents it is the paper's noisy data.
        """
        _require_share(share)

        def noisy(task: int, history: History) -> History:
            rival = other.tasks[task]
            count = round(len(history) * share)
            if len(rival) < count or rival.steps != history.steps:
                raise ValueError(
                    f"environment {task}: {count} histories of {history.steps} steps are needed, "
                    f"the other has {len(rival)} of {rival.steps}"
                )
            draw = np.random.default_rng([seed, task])
            indices = np.arange(len(history))
            indices[draw.choice(len(history), count, replace=False)] = len(history) + np.arange(
                count
            )
            return join([history, rival]).select(indices)

        return self.map(noisy)


def join(parts: list[History]) -> History:
    """Histories of one environment beside each other."""
    joined = {}
    for field in fields(History):
        values = [getattr(part, field.name) for part in parts]
        if all(value is not None for value in values):
            axis = 0 if field.name == "optimal_actions" else 1
            joined[field.name] = np.concatenate(values, axis)
    return History(**joined)


def grid_history(
    family: GridFamily, task: int, cells: Array, actions: Array, rewards: Array, ends: Array
) -> History:
    """The history of a log of cells on a grid, with the optimal actions that DPT learns.

    Args:
        family: of the task.
        task: its number.
        cells: before each step, [steps, histories].
        actions: taken.
        rewards: received.
        ends: the cells after each step.
    """
    dones = np.zeros(cells.shape, bool)
    dones[family.horizon - 1 :: family.horizon] = True
    states = family.coordinates(cells)
    return History(
        states=states,
        actions=actions.astype(np.int32),
        rewards=rewards.astype(np.int32),
        next_states=family.coordinates(ends),
        dones=dones,
        optimal_actions=best_actions(family, task, states, rewards.astype(np.int32)).T.astype(
            np.int32
        ),
    )


def write_histories(path: str | Path, histories: Histories) -> Path:
    """Write the HDF5 file; all or nothing."""
    import h5py

    attributes = {"env": histories.env, "horizon": histories.horizon, "source": histories.source}
    if histories.best is not None:
        attributes["best"] = histories.best
    if histories.grid is not None:
        attributes |= vars(histories.grid)
    with atomic_path(path) as part, h5py.File(part, "w") as file:
        file.attrs.update(attributes)
        for task, history in histories.tasks.items():
            group = file.create_group(str(task))
            for field in fields(history):
                if (value := getattr(history, field.name)) is not None:
                    group.create_dataset(
                        field.name, data=value, compression="gzip", compression_opts=1, shuffle=True
                    )
    return Path(path)


def read_histories(
    path: str | Path,
    *,
    env: str | None = None,
    horizon: int | None = None,
    best: float | None = None,
    tasks: Iterable[int] | None = None,
) -> Histories:
    """Read the HDF5 file of this package or of the DICP code.

    Args:
        path: of the file.
        env: the family; by default as the file or its name (``history_ENV_ALG_...``) says.
        horizon: steps of an episode; by default the file's or the family's.
        best: R_max, where it is not a grid's.
        tasks: read these alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, empty, or of another layout; or an unknown family.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no histories at {path}")
    wanted = None if tasks is None else set(map(int, tasks))
    found = {}
    try:
        with h5py.File(path) as file:
            attributes = {key: _plain(value) for key, value in file.attrs.items()}
            for name in sorted((key for key in file if key.isdigit()), key=int):
                if wanted is None or int(name) in wanted:
                    found[int(name)] = _read_group(path, name, file[name])
    except OSError as error:
        raise ValueError(f"{path} is truncated or not an HDF5 file: {error}") from error
    env = env or attributes.get("env") or _family_of(path)
    grid = None
    if "kind" in attributes:
        grid = GridFamily(**{k: attributes[k] for k in GridFamily.__dataclass_fields__})
    elif env in FAMILIES:
        grid = FAMILIES[env]
    if grid is not None and horizon is not None:
        grid = replace(grid, horizon=horizon)
    horizon = horizon or attributes.get("horizon") or (grid.horizon if grid else None)
    if env is None or horizon is None:
        raise ValueError(f"{path} does not tell its environment: give env and horizon")
    if not found:
        raise ValueError(f"{path} holds no histories" + (" of these tasks" if wanted else ""))
    best = attributes.get("best") if best is None else best
    return Histories(env, found, horizon, grid, best, attributes.get("source", ""))


def _read_group(path: Path, name: str, group: Any) -> History:
    known = [field.name for field in fields(History)]
    content = {key: group[key][()] for key in known if key in group}
    if missing := [key for key in known[:4] if key not in content]:
        raise ValueError(f"{path}, environment {name}: no {', '.join(missing)}")
    content.setdefault("dones", np.zeros(content["rewards"].shape, bool))
    try:
        return History(**content)
    except ValueError as error:
        raise ValueError(f"{path}, environment {name}: {error}") from error


def _family_of(path: Path) -> str | None:
    names = {
        "darkroom": "darkroom",
        "darkroompermuted": "darkroom_permuted",
        "darkkeytodoor": "key_to_door",
    }
    parts = path.stem.split("_")
    return names.get(parts[1], parts[1]) if parts[0] == "history" and len(parts) > 1 else None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _require_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: must be in (0, 1]")
