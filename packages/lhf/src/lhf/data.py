"""Training windows of histories: index arithmetic on tensors that stay where they are."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from lhf.grids import toward
from lhf.histories import Histories
from lhf.model import DPTConfig, GridConfig

QUERIES = ("next", "history", "grid")


class Windows:
    """Every window of ``transitions`` steps of every history, [histories, steps] flattened.

    Args:
        histories: where they differ in length, the shorter ones have fewer windows.
        config: of the learner; its ``transitions`` is the window's length.
        weights: sampling rate of each history by task, instead of 1; see
            :func:`lhf.filtering.sampling_weights`.
        query: for which state DPT is asked: ``next``, the one after the context (DICP's code);
            ``history``, any of the history; or ``grid``, any cell (the original DPT).

    Raises:
        ValueError: for a history shorter than the window, or without the optimal actions that DPT
            learns.
    """

    def __init__(
        self,
        histories: Histories,
        config: Any,
        *,
        weights: Mapping[int, np.ndarray] | None = None,
        query: str = "next",
    ) -> None:
        self.config, self.length, self.query = config, config.transitions, query
        self.discrete = isinstance(config, GridConfig)
        self.optimal = isinstance(config, DPTConfig)
        if query not in QUERIES:
            raise ValueError(f"query={query!r}: must be one of {', '.join(QUERIES)}")
        if query != "next" and not self.optimal:
            raise ValueError(f"query={query!r}: only DPT is asked elsewhere than after the context")
        if query == "grid":
            self.answers = _answers(histories, config)
        parts: dict[str, list[Tensor]] = {}
        lengths, rates = [], []
        for task, history in histories.tasks.items():
            if history.steps < self.length:
                raise ValueError(
                    f"transitions={self.length}: the histories of environment {task} have only "
                    f"{history.steps} steps"
                )
            for name, value in self._columns(task, history).items():
                parts.setdefault(name, []).append(value)
            lengths += [history.steps] * len(history)
            rates.append(np.ones(len(history)) if weights is None else weights[task])
        self.columns = {name: torch.cat(values) for name, values in parts.items()}
        steps = torch.tensor(lengths)
        self.tasks = torch.arange(len(histories.tasks)).repeat_interleave(
            torch.tensor([len(history) for history in histories.tasks.values()])
        )
        self.steps, self.first = steps, steps.cumsum(0) - steps
        self.counts = steps - self.length + 1
        self.ends = self.counts.cumsum(0)
        self.rates = torch.from_numpy(np.concatenate(rates)).double() * self.counts

    def _columns(self, task: int, history: Any) -> dict[str, Tensor]:
        """Tensors of [histories * steps, ...], small integers where the grid allows."""
        small = np.uint8 if self.discrete else np.float32
        fields = {"states": small, "actions": small, "rewards": small, "next_states": small}
        if (
            self.discrete
            and max(history.states.max(), history.next_states.max()) >= self.config.size
        ):
            raise ValueError(
                f"size={self.config.size}: environment {task} has states beyond such a grid"
            )
        columns = {
            name: torch.from_numpy(np.swapaxes(getattr(history, name), 0, 1).astype(kind))
            for name, kind in fields.items()
        }
        if not self.discrete:
            for name in ("states", "next_states"):
                columns[name] = columns[name][..., : self.config.observation]
        if self.optimal:
            if history.optimal_actions is None:
                raise ValueError(f"environment {task}: DPT needs optimal_actions, there are none")
            columns["optimal"] = torch.from_numpy(history.optimal_actions.astype(np.uint8))
        return {name: value.flatten(0, 1).contiguous() for name, value in columns.items()}

    def __len__(self) -> int:
        return int(self.ends[-1])

    def to(self, device: torch.device | str) -> "Windows":
        """The data on another device."""
        self.columns = {name: value.to(device) for name, value in self.columns.items()}
        return self

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        """Indices of windows, with replacement, by the histories' rates."""
        history = torch.multinomial(self.rates, count, replacement=True, generator=generator)
        chance = torch.rand(count, generator=generator, dtype=torch.float64)
        within = (chance * self.counts[history]).long()
        return self.ends[history] - self.counts[history] + within

    def batch(
        self, indices: Int[Tensor, " batch"], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The windows as a learner takes them, with what it is to predict."""
        history = torch.searchsorted(self.ends, indices, right=True)
        start = self.first[history] + indices - (self.ends[history] - self.counts[history])
        past = start[:, None] + torch.arange(self.length - 1)
        query = start + self.length - 1
        if self.query == "history":
            chance = torch.rand(len(indices), generator=generator, dtype=torch.float64)
            query = self.first[history] + (chance * self.steps[history]).long()
        device = self.columns["states"].device
        past, query = past.to(device), query.to(device)
        batch = {
            name: self._typed(name, self.columns[name][past])
            for name in ("states", "actions", "rewards", "next_states")
        }
        batch["query_states"] = self.columns["states"][query].float()
        taken = self._typed("actions", self.columns["actions"][query])
        batch["target_actions"] = self.columns["optimal"][query].long() if self.optimal else taken
        if self.query == "grid":
            answers = self.answers[self.tasks[history]]
            cells = torch.randint(answers.shape[1], (len(indices),), generator=generator)
            places = [cells // self.config.size, cells % self.config.size]
            batch["query_states"] = torch.stack(places, -1).float().to(device)
            target = answers.gather(1, cells[:, None])[:, 0]
            batch["target_actions"] = target.long().to(device)
        if self.config.dynamics:
            batch["query_actions"] = taken
            reward, after = self.columns["rewards"][query], self.columns["next_states"][query]
            batch["target_rewards"] = reward.long() if self.discrete else reward
            if self.discrete:
                row, column = after.long().unbind(-1)
                batch["target_next_states"] = row * self.config.size + column
        return batch

    def _typed(self, name: str, value: Tensor) -> Tensor:
        return value.long() if name == "actions" and self.discrete else value.float()


def _answers(histories: Histories, config: Any) -> UInt8[Tensor, "tasks cells"]:
    """The optimal action in every cell of every task."""
    grids = histories.grid
    if grids is None or grids.kind == "key_to_door" or config.dynamics:
        raise ValueError(
            "query='grid': needs a grid where the cell alone tells the optimal action, "
            "and a learner without dynamics"
        )
    tasks = np.array(list(histories.tasks))[:, None]
    goals = np.full_like(tasks, grids.cells - 1) if grids.kind == "permuted" else tasks
    return torch.from_numpy(toward(grids, tasks, np.arange(grids.cells)[None], goals))


class Drawn(torch.utils.data.Dataset):
    """``samples`` windows per epoch, drawn anew; which ones is a function of the epoch's seed.

    Args:
        windows: to draw from.
        samples: per epoch.
        seed: gives the seed of the current epoch.
    """

    def __init__(self, windows: Windows, samples: int, seed: Callable[[], int]) -> None:
        self.windows, self.samples, self.seed = windows, samples, seed
        self.drawn: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return self.samples

    def __getitems__(self, places: list[int]) -> dict[str, Tensor]:
        seed = self.seed()
        if self.drawn is None or self.drawn[0] != seed:
            generator = torch.Generator().manual_seed(seed)
            self.drawn = seed, self.windows.draw(self.samples, generator)
        generator = torch.Generator().manual_seed(seed * 1_000_003 % 2**63 + places[0])
        return self.windows.batch(self.drawn[1][places], generator)
