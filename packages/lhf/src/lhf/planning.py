"""Planning with the dynamics that a learner models in context (DICP)."""

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from lhf.model import ContinuousAD, GridLearner

BEAM = 10


def plan(
    model: GridLearner,
    context: Float[Tensor, "batch past dim"],
    states: Float[Tensor, "batch 2"],
    *,
    levels: int,
    beam: int = BEAM,
    sample: bool = True,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " batch"]:
    """The first action of the action sequence that is predicted to pay most (beam search).

    Args:
        model: with dynamics.
        context: embedded transitions, the window's whole length.
        states: (row, column) now.
        levels: how many steps to look ahead.
        beam: sequences kept at each level.
        sample: whether equal sequences rank by a draw from the policy, or by its logits.
        generator: of that draw.
    """
    if not model.config.dynamics:
        raise ValueError("planning needs a model with dynamics=True")
    if beam < 1 or levels < 1:
        raise ValueError(f"beam={beam}, levels={levels}: must be at least 1")
    batch, actions = len(states), model.config.actions
    every = torch.arange(actions, device=context.device)
    found = model.imagine(context, states, every.expand(batch, -1))
    policy = found["action"].softmax(-1)
    if sample:
        order = torch.multinomial(policy, actions, generator=generator)
    else:
        order = found["action"].argsort(-1, descending=True)
    reward, cell = (found[part].argmax(-1).gather(1, order) for part in ("reward", "next_state"))
    score, top = best_of(reward, beam)
    action = first = order.gather(1, top)
    states, paths = states[:, None], context.new_empty(batch, 1, 0, context.shape[-1])
    parent = torch.zeros_like(top)
    for level in range(1, levels):
        reward, cell = reward.gather(1, top), cell.gather(1, top)
        states, paths = pick(states, parent), pick(paths, parent)
        after = torch.stack([cell // model.config.size, cell % model.config.size], -1).float()
        token = model.embed(states, action, reward, after)
        # Each step drops the oldest transition: the window keeps its length.
        paths = torch.cat([paths, token[:, :, None]], 2)[:, :, -context.shape[1] :]
        found = model.explore(context[:, level:], paths, after)
        reward, cell = (found[part].argmax(-1).flatten(1) for part in ("reward", "next_state"))
        states = after
        score, top = best_of(repeat(score, "b k -> b (k a)", a=actions) + reward, beam)
        parent, action = top // actions, top % actions
        first = first.gather(1, parent)
    return first[:, 0]


def best_of(score: Tensor, beam: int) -> tuple[Tensor, Tensor]:
    """Scores and places of the ``beam`` largest; among equals the earlier one."""
    ranked = torch.sort(score, dim=-1, descending=True, stable=True)
    return ranked.values[:, :beam], ranked.indices[:, :beam]


def pick(x: Float[Tensor, "batch n *rest"], places: Int[Tensor, "batch k"]) -> Tensor:
    """``x[b, places[b]]``."""
    return x[torch.arange(len(x), device=x.device)[:, None], places]


def plan_action(
    model: ContinuousAD,
    context: Float[Tensor, "batch past dim"],
    states: Float[Tensor, "batch obs"],
    *,
    candidates: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch act"]:
    """Of the mean action and ``candidates - 1`` draws, the one predicted to pay most."""
    mean, deviation = model.gaussian(model.act(context, states))
    noise = torch.randn(
        len(mean), candidates - 1, mean.shape[1], generator=generator, device=mean.device
    )
    choices = torch.cat([mean[:, None], mean[:, None] + noise * deviation[:, None]], 1)
    reward = model.imagine(context, states, choices)["reward"].clip(*model.config.reward_range)
    best = reward.sort(-1, descending=True).indices[:, :1]
    return pick(choices, best)[:, 0]
