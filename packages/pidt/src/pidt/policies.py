"""Who decides: greedy, random, the optimum, the Decision Transformer."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from pidt.episode import Episode
from pidt.feeder import Array
from pidt.model import PIDT, PIDTConfig
from pidt.optimum import exact_optimum
from pidt.problem import Restoration

Policy = Callable[[Episode], int]
"""The next action of an episode."""


def greedy(episode: Episode) -> int:
    """The feasible switch that picks up the most weighted load; stop when there is none."""
    problem = episode.problem
    before = problem.restored(episode.state)
    gains = [
        (problem.restored(problem.close(episode.state, int(action))) - before, -int(action))
        for action in np.flatnonzero(episode.mask[:-1])
    ]
    return -max(gains)[1] if gains else episode.stop


def random_feasible(generator: np.random.Generator) -> Policy:
    """Any feasible switch; stop when there is none."""

    def decide(episode: Episode) -> int:
        actions = np.flatnonzero(episode.mask[:-1])
        return int(generator.choice(actions)) if actions.size else episode.stop

    return decide


def random_valid(generator: np.random.Generator) -> Policy:
    """Any valid switch, whether the limits hold afterwards or not."""

    def decide(episode: Episode) -> int:
        actions = np.flatnonzero(episode.problem.valid(episode.state)[:-1])
        return int(generator.choice(actions)) if actions.size else episode.stop

    return decide


def optimal(problem: Restoration) -> Policy:
    """Follows the exact optimum; from a state that missed it, the best that is left."""
    optimum = exact_optimum(problem)
    return lambda episode: optimum.actions(problem, episode.state)[0]


def mixed(policy: Policy, other: Policy, share: float, generator: np.random.Generator) -> Policy:
    """``other`` with probability ``share``, else ``policy``."""
    return lambda episode: (other if generator.random() < share else policy)(episode)


def play(problem: Restoration, policy: Policy) -> Episode:
    """One whole episode."""
    episode = Episode(problem)
    while not episode.done:
        episode.step(policy(episode))
    return episode


def state_of(config: PIDTConfig, observation: Array, context: Array, mask: Array) -> Array:
    """The state that a network of ``config`` takes: the observation, and what else it is given."""
    parts = [observation]
    parts += [context] if config.context else []
    parts += [mask] if config.feature else []
    return np.concatenate(parts, -1)


def check_fits(config: PIDTConfig, problem: Restoration) -> None:
    """Whether a network is of the problem's sizes.

    Raises:
        ValueError: when it is of another feeder, another list of switches or shorter episodes.
    """
    mask = np.ones(len(problem.switches) + 1)
    observed = problem.observe(problem.start)
    found = len(state_of(config, observed, problem.context, mask))
    if found != config.state_dim:
        raise ValueError(
            f"the model takes states of {config.state_dim} numbers, this problem has {found}: "
            "it was trained on another feeder or other switches"
        )
    if len(mask) != config.actions:
        raise ValueError(f"the model has {config.actions} actions, this problem {len(mask)}")
    if problem.horizon > config.steps:
        raise ValueError(
            f"horizon={problem.horizon}: the model knows episodes of at most {config.steps} steps"
        )


@torch.no_grad()
def roll_out(
    model: PIDT,
    problems: Sequence[Restoration],
    target: float | Sequence[float],
    *,
    masked: bool | None = None,
) -> list[Episode]:
    """Plays all problems at once with the model's most likely action.

    The return to go starts at the target and falls by every reward, penalties included.

    Args:
        model: in evaluation mode.
        problems: all of the sizes the model was trained for.
        target: return to ask for: the share of load to restore beyond the start's.
        masked: whether infeasible actions are ruled out; the configuration's choice by default.

    Raises:
        ValueError: for a target that is not finite, or a problem of other sizes.
    """
    targets = np.broadcast_to(np.asarray(target, float), (len(problems),)).copy()
    if not np.isfinite(targets).all():
        raise ValueError(f"target return {target}: must be finite")
    config = model.config
    for problem in problems:
        check_fits(config, problem)
    masked = config.mask if masked is None else masked
    device = model.embed_return.weight.device
    episodes = [Episode(problem) for problem in problems]
    most = max((problem.horizon for problem in problems), default=0)
    states = np.zeros((len(episodes), most, config.state_dim), np.float32)
    returns = np.zeros((len(episodes), most, 1), np.float32)
    actions = torch.zeros(len(episodes), most, dtype=torch.long)
    for step in range(most):
        live = [row for row, episode in enumerate(episodes) if not episode.done]
        if not live:
            break
        for row in live:
            episode, problem = episodes[row], problems[row]
            observed = problem.observe(episode.state)
            states[row, step] = state_of(config, observed, problem.context, episode.mask)
            returns[row, step] = targets[row]
        seen = slice(step + 1)
        logits = model(
            torch.from_numpy(states[live, seen]).to(device),
            F.one_hot(actions[live, seen], config.actions).float().to(device),
            torch.from_numpy(returns[live, seen]).to(device),
            torch.arange(step + 1, device=device).expand(len(live), -1),
        ).actions[:, -1]
        if masked:
            masks = np.stack([episodes[row].mask for row in live])
            logits = logits.masked_fill(~torch.from_numpy(masks).to(device), -torch.inf)
        for row, action in zip(live, logits.argmax(-1).tolist(), strict=True):
            actions[row, step] = action
            targets[row] -= episodes[row].step(action)
    return episodes


def restore(problem: Restoration, model: PIDT, target: float = 1.0) -> Episode:
    """The model's plan for one problem; see :func:`roll_out`."""
    return roll_out(model, [problem], target)[0]
