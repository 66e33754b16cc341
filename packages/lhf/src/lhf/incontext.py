"""In-context evaluation: a frozen learner meets tasks that it has never seen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lhf.grids import GridWorld
from lhf.model import ContinuousAD, GridLearner, InContextLearner
from lhf.planning import plan, plan_action

CONTEXTS = ("window", "rolling")
PLAN_FROM = 50
"""Step of an episode after which continuous control plans, as the authors do."""


@runtime_checkable
class World(Protocol):
    """Tasks that are stepped together; every episode has ``horizon`` steps."""

    horizon: int

    def start(self) -> np.ndarray:
        """Observations at the beginning of an episode, [tasks, dims]."""

    def act(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observations and rewards after ``actions``; at the end, the terminal observations."""


class Grids:
    """A :class:`GridWorld` with one row per copy."""

    def __init__(self, world: GridWorld) -> None:
        self.world, self.horizon = world, world.horizon
        self.best = np.repeat(world.family.best_return(world.tasks), world.shape[1])
        self.depth = world.family.planning_depth

    def start(self) -> np.ndarray:
        return self._observe(self.world.reset())

    def act(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells, rewards, _ = self.world.step(actions.reshape(self.world.shape))
        return self._observe(cells), rewards.ravel()

    def _observe(self, cells: np.ndarray) -> np.ndarray:
        return self.world.family.coordinates(cells.ravel())


@dataclass(frozen=True, eq=False)
class InContextResult:
    """Returns in the order they were earned."""

    returns: np.ndarray
    """[tasks, episodes]."""
    best: np.ndarray | None = None
    """Largest return of each task."""

    @property
    def curve(self) -> np.ndarray:
        """Mean return of each episode over the tasks, as a share of the best if it is known."""
        share = self.returns if self.best is None else self.returns / self.best[:, None]
        return share.mean(0)


class Window:
    """The last transitions; the learner reads them all at each step, as the authors' code does."""

    def __init__(self, model: InContextLearner, batch: int) -> None:
        self.model, self.most = model, model.config.transitions - 1
        weight = model.embed_context.weight
        self.room = weight.new_empty(batch, 2 * self.most, model.config.dim)
        self.begin = self.end = 0

    @property
    def tokens(self) -> Float[Tensor, "batch past dim"]:
        """Embedded transitions, the oldest first."""
        return self.room[:, self.begin : self.end]

    def append(self, token: Float[Tensor, "batch 1 dim"]) -> None:
        if self.end == self.room.shape[1]:
            kept = self.room[:, self.begin :].clone()
            self.begin, self.end = 0, kept.shape[1]
            self.room[:, : self.end] = kept
        self.room[:, self.end] = token[:, 0]
        self.end += 1
        self.begin = max(self.begin, self.end - self.most)

    def act(self, states: Tensor) -> Float[Tensor, "batch out"]:
        return self.model.act(self.tokens, states)

    def follow(self, states: Tensor) -> None:
        """Take note that another acts in ``states``."""


class Rolling(Window):
    """Keys and values of the last transitions, kept: a step costs two tokens whatever the length.

    Equal to :class:`Window` for AD until the window is full. Afterwards, and from the start for
    DPT, whose context reads the query, kept tokens still know what they once saw: the numbers
    differ from the authors'. Rotary phases only tell differences of positions, so these may run on.
    """

    def __init__(self, model: InContextLearner, batch: int) -> None:
        super().__init__(model, batch)
        # Slot 0 holds the query of the step, the others are a ring.
        self.memory = model.trunk.memory(batch, self.most + 1)
        # Of two tokens, the later one sees the earlier one but not the other way round.
        self.hidden = self.memory.new_full((2, self.most + 1), -torch.inf)
        self.hidden[1, 0] = 0
        if model.query_first:
            self.hidden[0, 0] = 0
        self.count = 0
        self.new: Tensor | None = None

    def append(self, token: Float[Tensor, "batch 1 dim"]) -> None:
        if self.model.config.dynamics:  # the planner reads the tokens
            super().append(token)
        self.new, self.count = token, self.count + 1

    def follow(self, states: Tensor) -> None:
        self.act(states)

    def act(self, states: Tensor) -> Float[Tensor, "batch out"]:
        tokens = self.model.embed_query(states)
        positions, slots = [0], [0]
        if self.new is not None:
            slot = 1 + (self.count - 1) % self.most
            tokens = self.model.window(self.new, tokens)
            if self.model.query_first:
                positions, slots = [max(self.count - self.most, 0), self.count], [0, slot]
                self.hidden[1, slot] = 0
            else:
                positions, slots = [self.count - 1, self.count], [slot, 0]
                self.hidden[:, slot] = 0
        number = torch.tensor([positions, slots], device=tokens.device)
        hidden = self.hidden[-len(slots) :]
        out = self.model.trunk.step(tokens, number[0], hidden, self.memory, number[1])
        return self.model.head_action(out[:, -1])


@torch.inference_mode()
def evaluate_in_context(
    model: InContextLearner,
    world: World | GridWorld,
    episodes: int,
    *,
    context: str = "window",
    beam: int = 0,
    candidates: int = 1,
    sample: bool = True,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda steps, text: steps,
) -> InContextResult:
    """Act for ``episodes`` with an ever-growing context that no reset clears.

    Args:
        model: its parameters are not touched.
        world: all its tasks are acted in at once.
        episodes: of the world's horizon.
        context: ``window`` reads the window at each step, as the authors' code does; ``rolling``
            keeps keys and values (see :class:`Rolling`).
        beam: sequences that DICP's planner keeps on a grid; 0 acts by the policy.
        candidates: actions that it compares in continuous control.
        sample: draw actions from the policy, or take its most likely one.
        generator: of the draws; torch's global one by default.
        progress: wraps the steps in a progress bar.

    Raises:
        ValueError: for an unknown context, or planning without dynamics.
    """
    if context not in CONTEXTS:
        raise ValueError(f"context={context!r}: must be one of {', '.join(CONTEXTS)}")
    if episodes < 1:
        raise ValueError(f"episodes={episodes}: must be at least 1")
    if (beam > 0 or candidates > 1) and not model.config.dynamics:
        raise ValueError("planning needs a model with dynamics=True")
    world = Grids(world) if isinstance(world, GridWorld) else world
    device, dtype = model.embed_context.weight.device, model.embed_context.weight.dtype
    training = model.training
    model.eval()

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=device).to(dtype)

    returns: list[np.ndarray] = []
    states = tensor(world.start())
    past = (Rolling if context == "rolling" else Window)(model, len(states))
    for step in progress(range(episodes * world.horizon), "in context"):
        position = step % world.horizon
        if position == 0:
            returns.append(np.zeros(len(states)))
            states = tensor(world.start())
        full = step >= model.config.transitions
        if isinstance(model, ContinuousAD):
            some = candidates if full and position > PLAN_FROM else 1
            actions = _control(model, past, states, some, sample, generator)
        elif full and beam and isinstance(model, GridLearner):
            past.follow(states)
            levels = min(world.depth, world.horizon - position)  # type: ignore[attr-defined]
            actions = plan(
                model, past.tokens, states,
                levels=levels, beam=beam, sample=sample, generator=generator,
            )  # fmt: skip
        else:
            logits = past.act(states)
            actions = logits.argmax(-1)
            if sample:
                actions = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        seen, earned = world.act(actions.cpu().numpy())
        returns[-1] += earned
        after, rewards = tensor(seen), tensor(earned)
        past.append(
            model.embed(states[:, None], actions[:, None], rewards[:, None], after[:, None])
        )
        states = after
    model.train(training)
    return InContextResult(np.stack(returns, 1), getattr(world, "best", None))


def _control(
    model: ContinuousAD,
    past: Window,
    states: Tensor,
    candidates: int,
    sample: bool,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch act"]:
    if candidates > 1:
        past.follow(states)
        return plan_action(model, past.tokens, states, candidates=candidates, generator=generator)
    mean, deviation = model.gaussian(past.act(states))
    if not sample:
        return mean
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + noise * deviation
