"""Recorded restorations: collecting, files, and sequences for a Decision Transformer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from attention_core import atomic_path
from torch import Tensor
from torch.utils.data import Dataset

from pidt.episode import Episode
from pidt.feeder import Array
from pidt.model import PIDTConfig
from pidt.optimum import exact_optimum
from pidt.policies import Policy, greedy, mixed, random_feasible, random_valid, state_of
from pidt.problem import Restoration


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes one after another; ``terminals`` marks the last step of each.

    Raises:
        ValueError: for arrays of unequal length, an unfinished last episode, or numbers that are
            not finite.
    """

    observations: Array
    """[steps, observation]."""
    actions: Array
    """[steps], positions in the list of switches; the last is stop."""
    rewards: Array
    """[steps]."""
    terminals: Array
    """[steps], bool."""
    masks: Array
    """[steps, actions], bool: what was feasible."""
    contexts: Array
    """[episodes, context]: the scenario of each."""

    def __post_init__(self) -> None:
        steps = len(self.observations)
        for name in ("actions", "rewards", "terminals", "masks"):
            if len(getattr(self, name)) != steps:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} steps, observations {steps}"
                )
        if not steps or not self.terminals[-1]:
            raise ValueError("the last step of trajectories must be terminal")
        if len(self.contexts) != self.terminals.sum():
            raise ValueError(f"{len(self.contexts)} contexts, {self.terminals.sum()} episodes")
        for name in ("observations", "rewards", "contexts"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name}: not finite")
        if self.actions.min() < 0 or self.actions.max() >= self.masks.shape[1]:
            raise ValueError(f"actions must be 0 to {self.masks.shape[1] - 1}")

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.contexts)

    def bounds(self) -> list[tuple[int, int]]:
        """First step of each episode, and the one after its last."""
        ends = (np.flatnonzero(self.terminals) + 1).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def returns_to_go(self) -> Array:
        """[steps]: rewards from each step to its episode's end."""
        total = np.concatenate([np.cumsum(self.rewards[a:b][::-1])[::-1] for a, b in self.bounds()])
        return total.astype(np.float32)

    def best_return(self) -> float:
        starts = [start for start, _ in self.bounds()]
        return float(self.returns_to_go()[starts].max())

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file; all or nothing."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> "Trajectories":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: for a file that is damaged or lacks an array.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no trajectories at {path}")
        names = [f.name for f in fields(cls)]
        try:
            with np.load(path, allow_pickle=False) as file:
                missing = [name for name in names if name not in file]
                arrays = {name: file[name] for name in names if name in file}
        except Exception as error:  # zipfile, zlib and NumPy each have their own
            raise ValueError(f"{path} is damaged or not an .npz file: {error}") from error
        if missing:
            raise ValueError(f"{path}: no {', '.join(missing)}")
        return cls(**arrays)


def record(problem: Restoration, policy: Policy) -> tuple[Episode, dict[str, Array]]:
    """Play one episode and keep its arrays."""
    episode = Episode(problem)
    rows: dict[str, list] = {"observations": [], "actions": [], "rewards": [], "masks": []}
    while not episode.done:
        rows["observations"].append(problem.observe(episode.state).astype(np.float32))
        rows["masks"].append(episode.mask)
        rows["actions"].append(policy(episode))
        rows["rewards"].append(episode.step(rows["actions"][-1]))
    arrays = {name: np.array(values) for name, values in rows.items()}
    arrays["terminals"] = np.arange(len(arrays["actions"])) == len(arrays["actions"]) - 1
    return episode, arrays


def join(parts: Sequence[dict[str, Array]], contexts: Sequence[Array]) -> Trajectories:
    """Recorded episodes as one set."""
    names = ("observations", "actions", "rewards", "terminals", "masks")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in names}
    arrays["rewards"] = arrays["rewards"].astype(np.float32)
    return Trajectories(**arrays, contexts=np.array(contexts, np.float32))


MIXTURE = {"optimal": 0.4, "epsilon": 0.2, "greedy": 0.15, "random": 0.15, "reckless": 0.1}
"""Shares of the policies that data is collected with; reckless ignores the limits."""


def collect(
    problems: Iterable[Restoration],
    *,
    episodes: int = 4,
    mixture: dict[str, float] | None = None,
    seed: int = 0,
    policies: Callable[[Restoration], Policy] | None = None,
) -> Trajectories:
    """Behaviour data: every problem played by a mixture of policies.

    Args:
        problems: outages; each is searched exactly once, if the mixture wants it.
        episodes: of each problem.
        mixture: policy -> share; `MIXTURE` by default.
        seed: of the draws.
        policies: instead of the mixture, the policy of each problem.

    Raises:
        ValueError: for an unknown policy, or no problems.
    """
    shares = mixture or MIXTURE
    if unknown := sorted(set(shares) - set(MIXTURE)):
        raise ValueError(f"no policy {', '.join(unknown)}; there is {', '.join(MIXTURE)}")
    generator = np.random.default_rng(seed)
    chances = np.array(list(shares.values())) / sum(shares.values())
    parts, contexts = [], []
    for problem in problems:
        known: dict[str, Policy] = {
            "greedy": greedy,
            "random": random_feasible(generator),
            "reckless": mixed(greedy, random_valid(generator), 0.3, generator),
        }
        if policies is None and {"optimal", "epsilon"} & set(shares):
            known |= _searched(problem, generator)
        for _ in range(episodes):
            chosen = (
                policies(problem) if policies else known[generator.choice(list(shares), p=chances)]
            )
            parts.append(record(problem, chosen)[1])
            contexts.append(problem.context)
    if not parts:
        raise ValueError("no problems to collect from")
    return join(parts, contexts)


def _searched(problem: Restoration, generator: np.random.Generator) -> dict[str, Policy]:
    optimum = exact_optimum(problem)

    def best(episode: Episode) -> int:
        return int(generator.choice(optimum.actions(problem, episode.state)))

    return {"optimal": best, "epsilon": mixed(best, random_feasible(generator), 0.2, generator)}


class Sequences(Dataset):
    """Whole episodes, padded on the left to the longest."""

    def __init__(self, data: Trajectories, config: PIDTConfig) -> None:
        bounds = data.bounds()
        longest = max(stop - start for start, stop in bounds)
        if longest > config.steps:
            raise ValueError(f"an episode has {longest} steps, the model at most {config.steps}")
        if data.masks.shape[1] != config.actions:
            raise ValueError(
                f"the data has {data.masks.shape[1]} actions, the model {config.actions}"
            )
        lengths = np.array([stop - start for start, stop in bounds])
        contexts = np.repeat(data.contexts, lengths, 0)
        states = state_of(config, data.observations, contexts, data.masks).astype(np.float32)
        if states.shape[1] != config.state_dim:
            raise ValueError(
                f"the data has states of {states.shape[1]} numbers, the model {config.state_dim}"
            )
        slots = np.concatenate([np.arange(longest - n, longest) for n in lengths])
        rows = np.repeat(np.arange(len(bounds)), lengths)

        def padded(values: Array, fill: float = 0) -> Tensor:
            out = np.full((len(bounds), longest, *values.shape[1:]), fill, values.dtype)
            out[rows, slots] = values
            return torch.from_numpy(out)

        self.states = padded(states)
        self.actions = padded(data.actions.astype(np.int64))
        self.returns = padded(data.returns_to_go()[:, None])
        self.times = padded(np.concatenate([np.arange(n) for n in lengths]))
        self.masks = padded(data.masks.astype(bool))
        self.present = padded(np.ones(len(slots), bool))

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, row: int | Tensor) -> tuple[Tensor, ...]:
        return (
            self.states[row], self.actions[row], self.returns[row], self.times[row],
            self.masks[row], self.present[row],
        )  # fmt: skip
