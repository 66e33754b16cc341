"""Proximal policy optimisation of many tasks at once: one agent per task, all in step.

Each agent is Stable-Baselines3's MlpPolicy (two tanh networks of 64-64 for policy and value) under
its PPO, with parallel copies of one task. The agents' weights are one array, and so are their
products, gradients (written out by hand) and Adam's moments.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from attention_core import require, require_positive
from jaxtyping import Float, Int
from torch import Tensor

from lhf.grids import ACTIONS, GridFamily, GridWorld
from lhf.histories import History, grid_history

HIDDEN = 64
OUTPUTS = ACTIONS
"""The value network has as many outputs as the policy; all but the first stay 0."""
_SHAPES = ((2, HIDDEN), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (HIDDEN, OUTPUTS), (OUTPUTS,))
POLICY, VALUE = 0, 1


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """As Stable-Baselines3 names and defaults them, but for the published ``batch_size`` etc."""

    n_steps: int = 20
    batch_size: int = 50
    n_epochs: int = 20
    learning_rate: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        require_positive(self, "n_steps", "batch_size", "n_epochs")
        require(self, "batch_size", self.batch_size > 1, "must be at least 2")
        require(self, "learning_rate", self.learning_rate > 0, "must be positive")


PUBLISHED = {
    "darkroom": PPOConfig(),
    "permuted": PPOConfig(n_steps=50),
    "key_to_door": PPOConfig(n_steps=50, batch_size=100, n_epochs=10),
}
"""Settings of the DICP code, by kind of grid; the large darkroom has the second's."""


def published(family: GridFamily) -> PPOConfig:
    """The settings of a family; a rollout is one episode."""
    base = PUBLISHED[family.kind]
    return PPOConfig(n_steps=family.horizon, batch_size=base.batch_size, n_epochs=base.n_epochs)


class Agents:
    """The networks of all agents.

    ``flat`` holds the weights, [2, agents, weights]: policies first, then value networks. The
    others are views of it: kernel and bias of three layers.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        sizes = [int(np.prod(shape)) for shape in _SHAPES]
        self.flat = torch.zeros(2, count, sum(sizes))
        self.sizes = sizes
        self.layers = self.views(self.flat)
        for layer, gain in enumerate((2**0.5, 2**0.5, 0.01)):
            kernel = self.layers[2 * layer]
            for net in range(2):
                last = layer == 2 and net == VALUE
                for agent in range(count):
                    view = kernel[net * count + agent]
                    part = torch.empty(1 if last else view.shape[1], view.shape[0])
                    torch.nn.init.orthogonal_(part, 1.0 if last else gain, generator=generator)
                    view[:, : part.shape[0]] = part.T

    def views(self, flat: Tensor) -> list[Tensor]:
        """Kernels [2 * agents, in, out] and biases [2 * agents, 1, out] of a flat array."""
        parts = flat.view(2 * self.count, -1).split(self.sizes, 1)
        return [
            part.unflatten(1, shape if len(shape) == 2 else (1, *shape))
            for part, shape in zip(parts, _SHAPES, strict=True)
        ]

    def forward(
        self, x: Float[Tensor, "agents batch 2"]
    ) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "2 agents batch out"]]:
        """Inputs of the three layers, and what comes out."""
        w1, b1, w2, b2, w3, b3 = self.layers
        x = x.repeat(2, 1, 1)
        h1 = torch.baddbmm(b1, x, w1).tanh_()
        h2 = torch.baddbmm(b2, h1, w2).tanh_()
        return x, h1, h2, torch.baddbmm(b3, h2, w3).unflatten(0, (2, -1))

    def backward(self, x: Tensor, h1: Tensor, h2: Tensor, out: Tensor, into: list[Tensor]) -> None:
        """Gradients of the weights for ``out``, the gradient of what came out."""
        _, _, w2, _, w3, _ = self.layers
        d3 = out.flatten(0, 1)
        d2 = torch.ops.aten.tanh_backward(torch.bmm(d3, w3.mT), h2)
        d1 = torch.ops.aten.tanh_backward(torch.bmm(d2, w2.mT), h1)
        for layer, (before, delta) in enumerate(((x, d1), (h1, d2), (h2, d3))):
            torch.bmm(before.mT, delta, out=into[2 * layer])
            torch.sum(delta, 1, keepdim=True, out=into[2 * layer + 1])


@dataclass(frozen=True, eq=False)
class Rollout:
    """What the copies of each task met, [steps, agents, copies]."""

    cells: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    ends: Tensor
    """The cells after each step."""
    over: list[bool]
    """Whether the episodes ended with the step."""


class BatchedPPO:
    """PPO on all tasks of a world; see :func:`collect`."""

    def __init__(self, world: GridWorld, config: PPOConfig, seed: int = 0) -> None:
        self.world, self.config = world, config
        copies = world.shape[1]
        if config.n_steps * copies % config.batch_size:
            raise ValueError(
                f"batch_size={config.batch_size}: must divide n_steps * copies = "
                f"{config.n_steps * copies}"
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.agents = Agents(world.shape[0], self.generator)
        self.gradient = torch.zeros_like(self.agents.flat)
        self.into = self.agents.views(self.gradient)
        self.agents.flat.grad = self.gradient
        self.adam = torch.optim.Adam([self.agents.flat], config.learning_rate, eps=1e-5, fused=True)
        place = world.family.coordinates(np.arange(world.family.cells))
        self.places = torch.from_numpy(place).float()
        self.rows = torch.arange(world.shape[0])[:, None]
        world.reset()

    def rollout(self) -> Rollout:
        """Act for ``n_steps``."""
        seen: dict[str, list[Any]] = {name: [] for name in Rollout.__dataclass_fields__}
        everywhere = self.places.expand(self.world.shape[0], -1, -1)
        out = self.agents.forward(everywhere)[-1]  # [2, agents, cells, out]: every state once
        log_policy, value = out[POLICY].log_softmax(-1), out[VALUE, ..., 0]
        policy = log_policy.exp().cumsum(-1)
        for _ in range(self.config.n_steps):
            cells = torch.from_numpy(self.world.cell.astype(np.int64))
            draw = torch.rand(cells.shape, generator=self.generator)[..., None]
            actions = (policy[self.rows, cells] < draw).sum(-1).clamp_(max=ACTIONS - 1)
            after, reward, over = self.world.step(actions.to(torch.uint8).numpy())
            seen["cells"].append(cells)
            seen["actions"].append(actions)
            seen["log_probs"].append(log_policy[self.rows, cells, actions])
            seen["values"].append(value.gather(1, cells))
            seen["rewards"].append(torch.from_numpy(reward.astype(np.float32)))
            seen["ends"].append(torch.from_numpy(after.astype(np.int64)))
            seen["over"].append(over)
            if over:
                self.world.reset()
        ends = seen.pop("over")
        return Rollout(**{name: torch.stack(value) for name, value in seen.items()}, over=ends)

    def advantages(self, rollout: Rollout) -> Float[Tensor, "steps agents copies"]:
        """Generalised advantage estimates; an episode's end is terminal."""
        gamma, decay = self.config.gamma, self.config.gae_lambda
        found = torch.zeros_like(rollout.values)
        ends = self.agents.forward(self.places[rollout.ends[-1]])[-1][VALUE, ..., 0]
        later, following = torch.zeros_like(ends), ends
        for step in reversed(range(len(found))):
            alive = 0.0 if rollout.over[step] else 1.0
            delta = rollout.rewards[step] + gamma * alive * following - rollout.values[step]
            found[step] = later = delta + gamma * decay * alive * later
            following = rollout.values[step]
        return found

    def learn(
        self, rollout: Rollout, order: Callable[[], Int[Tensor, "agents n"]] | None = None
    ) -> None:
        """The epochs of updates on a rollout.

        Args:
            rollout: of the current policy.
            order: gives each epoch's order of the transitions (copy-major, as in SB3's buffer).
        """
        advantage = self.advantages(rollout)
        target = advantage + rollout.values
        columns = [
            x.permute(1, 2, 0).flatten(1)
            for x in (rollout.cells, rollout.actions, rollout.log_probs, advantage, target)
        ]
        agents, count = columns[0].shape
        for _ in range(self.config.n_epochs):
            if order is None:
                draw = torch.rand(agents, count, generator=self.generator)
                places = draw.argsort(1)
            else:
                places = order()
            shuffled = [column.gather(1, places) for column in columns]
            for part in zip(*(c.split(self.config.batch_size, 1) for c in shuffled), strict=True):
                self.update(*part)

    def update(
        self, cells: Tensor, actions: Tensor, old: Tensor, advantage: Tensor, target: Tensor
    ) -> None:
        """One step of Adam on a minibatch, [agents, batch], of every agent."""
        config, size = self.config, cells.shape[1]
        spread = advantage.std(1, keepdim=True)
        advantage = (advantage - advantage.mean(1, keepdim=True)) / (spread + 1e-8)
        x, h1, h2, out = self.agents.forward(self.places[cells])
        log_policy = out[POLICY].log_softmax(-1)
        ratio = (log_policy.gather(-1, actions[..., None])[..., 0] - old).exp()
        beyond = torch.where(
            advantage > 0, ratio > 1 + config.clip_range, ratio < 1 - config.clip_range
        )
        pull = torch.where(beyond, 0.0, advantage * ratio / size)
        out[VALUE, ..., 0].sub_(target).mul_(2 * config.vf_coef / size)
        out[VALUE, ..., 1:] = 0
        torch.mul(log_policy.exp_(), pull[..., None], out=out[POLICY])
        out[POLICY].scatter_add_(-1, actions[..., None], -pull[..., None])
        self.agents.backward(x, h1, h2, out, self.into)
        norm = torch.linalg.vector_norm(self.gradient, dim=2, keepdim=True).norm(
            dim=0, keepdim=True
        )
        self.gradient *= (config.max_grad_norm / (norm + 1e-6)).clamp_(max=1)
        self.adam.step()


@torch.no_grad()
def collect(
    family: GridFamily,
    tasks: list[int],
    *,
    histories: int = 100,
    steps: int = 1000,
    config: PPOConfig | None = None,
    seed: int = 0,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda steps, text: steps,
) -> dict[int, History]:
    """Learning histories of one PPO agent per task; its parallel copies are the histories.

    Args:
        family: of the tasks.
        tasks: one agent for each.
        histories: parallel copies of a task.
        steps: of each copy; rounded down to whole rollouts.
        config: of PPO; by default the published settings.
        seed: of weights and draws.
        progress: wraps the rollouts in a progress bar.
    """
    config = config or published(family)
    if steps < config.n_steps:
        raise ValueError(f"steps={steps}: a rollout alone has {config.n_steps}")
    agents = BatchedPPO(GridWorld(family, tasks, histories), config, seed)
    kept: dict[str, list[np.ndarray]] = {"cells": [], "actions": [], "rewards": [], "ends": []}
    for _ in progress(range(steps // config.n_steps), "PPO"):
        rollout = agents.rollout()
        agents.learn(rollout)
        for name, parts in kept.items():
            value = getattr(rollout, name)
            parts.append(value.numpy().astype(agents.world.dtype))
    log = {name: np.concatenate(parts) for name, parts in kept.items()}
    return {
        task: grid_history(family, task, **{name: value[:, i] for name, value in log.items()})
        for i, task in enumerate(tasks)
    }
