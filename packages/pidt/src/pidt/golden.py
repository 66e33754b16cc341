"""Runs a golden case: an episode of the environment, or the Decision Transformer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from attention_core import GoldenCase
from torch import Tensor
from torch.func import functional_call

from pidt.episode import Episode, source_table
from pidt.feeder import load_feeder
from pidt.model import PIDT
from pidt.official import convert
from pidt.optimum import exact_optimum
from pidt.problem import Restoration


def run_golden(case: GoldenCase) -> Mapping[str, Any]:
    """The outputs that the case names."""
    return _environment(case) if "switches" in case.config else _transformer(case)


def problem_of(config: Mapping[str, Any]) -> Restoration:
    """The problem that a case's configuration describes."""
    name = next((word for word in config["feeder"].split() if word.startswith("case")), "case33bw")
    weights = config.get("load_weights")
    return Restoration(
        load_feeder(name),
        config["switches"],
        config["sources"],
        damaged=config.get("damaged", ()),
        load_weights=None if isinstance(weights, str) else weights,
        v_min=config.get("v_min", 0.95),
        v_max=config.get("v_max", 1.05),
        penalty=config.get("penalty", 0.1),
        horizon=config.get("horizon"),
    )


def _environment(case: GoldenCase) -> dict[str, Any]:
    problem = problem_of(case.config)
    episode = Episode(problem)
    seen, ends = [(problem.start, episode.mask)], []
    for action in case.inputs()["actions"]:
        episode.step(action)
        seen.append((episode.state, episode.mask))
        ends.append((episode.terminated, episode.truncated))
    observations = np.stack([problem.observe(state) for state, _ in seen])
    found = {
        "cell_of_bus": problem.cell_of_bus,
        "observation_first": observations[0],
        "observation_last": observations[-1],
        "observations": observations,
        "rewards": np.array([step.reward for step in episode.steps]),
        "terminated": np.array([terminated for terminated, _ in ends]),
        "truncated": np.array([truncated for _, truncated in ends]),
        "valid_mask": np.stack([problem.valid(state) for state, _ in seen]),
        "feasible_mask": np.stack([mask for _, mask in seen]),
        "source_p_q_loss_mw": np.stack([source_table(problem, state) for state, _ in seen]),
        "restored_mw": np.array([episode.restored_mw]),
        "best_restored_mw": np.array([exact_optimum(problem).restored_mw]),
    }
    return {name: torch.from_numpy(np.asarray(value, float)) for name, value in found.items()}


def _transformer(case: GoldenCase) -> dict[str, Tensor]:
    """Predictions at the steps that count; gradients of their mean square, under HF's names."""
    state = {key: value.requires_grad_() for key, value in case.state_dict().items()}
    told = case.config
    config, weights = convert(
        state,
        heads=told["n_head"],
        activation=told["activation"],
        action_tanh=told["action_tanh"],
        norm_eps=told["layer_norm_epsilon"],
    )
    config = replace(config, dropout=0.0)
    model = PIDT(config).to(case.dtype).train(case.record.get("mode") == "train")
    drawn = {name.partition(":")[2]: value for name, value in case.inputs().items()}
    mask = _mask(drawn.pop("", "ones"), *drawn["timesteps"].shape)
    out = functional_call(
        model,
        weights,
        (drawn["states"], drawn["actions"], drawn["returns_to_go"], drawn["timesteps"], mask),
    )
    actions, states, returns = (part[mask] for part in (out.actions, out.states, out.returns))
    loss = actions.square().mean()
    wanted = [name for name in case.record["outputs"] if name.startswith("grad:")]
    leaves = [state[name.removeprefix("grad:")] for name in wanted]
    gradients = torch.autograd.grad(loss, leaves) if leaves else ()
    return {
        "action_preds_valid": actions,
        "state_preds_valid": states,
        "return_preds_valid": returns,
        "action_mse_to_zero": loss,
        **dict(zip(wanted, gradients, strict=True)),
    }


def _mask(text: str, rows: int, steps: int) -> Tensor:
    """``ones, first [0, 4, 9] steps of each row masked`` -> true where a step counts."""
    inside = text.partition("[")[2].partition("]")[0]
    masked = [int(n) for n in inside.split(",")] if inside else [0] * rows
    return torch.arange(steps) >= torch.tensor(masked)[:, None]
