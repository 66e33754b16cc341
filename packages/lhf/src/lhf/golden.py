"""Runs a golden case: what the authors' code printed, asked of this package."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from attention_core import GoldenCase, load_state
from torch import Tensor
from torch.func import functional_call

from lhf import official
from lhf.filtering import score, select
from lhf.grids import PERMUTATIONS, GridWorld, family
from lhf.model import LEARNERS, total


def run_golden(case: GoldenCase) -> dict[str, Any]:
    """The outputs that the case names."""
    if case.record["state_dict"]:
        return _learner(case)
    return _filter(case) if "sampling" in case.config else _environments(case)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' names of what tensors don't tell -> ours."""
    names = {"tf_n_head": "heads", "n_transit": "transitions"}
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}


def _learner(case: GoldenCase) -> dict[str, Any]:
    state = {key: value.requires_grad_() for key, value in case.state_dict().items()}
    weights = official.rename_state(state)
    learner: Any = LEARNERS[official.backbone(weights)]
    config, weights = official.convert(learner.config_class, state, **settings(case.config))
    model = learner(config).to(case.dtype).eval()
    load_state(model, {key: value.detach() for key, value in weights.items()})
    batch = {}
    for name, value in case.inputs().items():
        cast = "cast" in case.record["inputs"][name]
        batch[name.rpartition(":")[2]] = value.to(case.dtype) if cast else value

    seen: dict[str, Any] = {}
    model.register_forward_hook(lambda module, args, output: seen.update(output))
    losses = functional_call(
        _Losses(model), {f"model.{k}": v for k, v in weights.items()}, (batch,)
    )
    action = seen["action"]
    found: dict[str, Any] = {f"logits_{part}": value for part, value in seen.items()}
    found |= losses | {"loss": total(losses, case.config.get("dynamics_strength", 1.0))}
    found |= {"reward": seen.get("reward"), "action": action}
    if learner is LEARNERS["continuous_ad"]:
        mean, deviation = model.gaussian(action)
        found |= {"mean": mean, "variance": deviation.square(), "std": deviation}
        found |= {"distribution": action, "log_variance": deviation.square().log()}
    wanted = case.record["outputs"]
    keys = {name: name.partition(":")[2] for name in wanted if name.startswith("grad_")}
    if keys:
        leaves = [state[key] for key in keys.values()]
        gradients = torch.autograd.grad(found["loss"], leaves, allow_unused=True)
        found |= {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for name, leaf, gradient in zip(keys, leaves, gradients, strict=True)
        }
    return {name: found[name] for name in wanted if found.get(name) is not None}


class _Losses(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.model.losses(batch)


def _filter(case: GoldenCase) -> dict[str, Any]:
    config = case.config
    inputs = {name.rpartition(":")[2]: value.numpy() for name, value in case.inputs().items()}
    best = np.array(config["max_return"], np.float64)
    ramp = np.linspace(0.2, 1, config["episodes"])
    returns = np.floor(inputs["raw"] * ramp * best[:, None, None])
    returns[:, 0] = np.sort(returns[:, 0], axis=-1)
    scores = [
        score(
            rows,
            top,
            coefficient=config["stability_coefficient"],
            sampling=config["sampling"],
            temperature=config.get("temperature") or 1.0,
        )
        for rows, top in zip(returns, best, strict=True)
    ]
    picked = [select(s.probability, d) for s, d in zip(scores, inputs["draws"], strict=True)]
    outputs = {
        name: np.stack([getattr(s, name) for s in scores])
        for name in ("improvement", "stability", "metric", "probability")
    }
    outputs["returns"] = returns
    outputs["selected"] = np.stack([indices for indices, _ in picked])
    outputs["draws_used"] = np.array([used for _, used in picked])
    return {name: torch.from_numpy(np.asarray(value)) for name, value in outputs.items()}


_FAMILIES = {
    "darkroom": "darkroom",
    "permuted": "darkroom_permuted",
    "large": "darkroom_large",
    "darkroom_large": "darkroom_large",
    "key_to_door": "key_to_door",
}


def _environments(case: GoldenCase) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for name, recorded in case.record["inputs"].items():
        actions = np.array(recorded["actions"])
        size = case.config.get("grid_size") if "large" not in name else None
        grids = family(_FAMILIES[name], size=size, horizon=actions.shape[1])
        places = recorded.get("goals") or recorded.get("key_and_door")
        tasks = recorded.get("permutation_index") or [grids.task(*place) for place in places]
        outputs |= {f"{name}:{key}": value for key, value in _played(grids, tasks, actions).items()}
    for name, seed in case.config.get("env_split_seed", {}).items():
        changes = {"size": case.config.get("grid_size")} if "large" not in name else {}
        grids = family(_FAMILIES[name], split_seed=seed, **changes)
        train, test = grids.split()
        described = [grids.describe(task) for task in test]
        outputs[f"split:{name}:test"] = test if grids.kind == "permuted" else described
        outputs[f"split:{name}:sizes"] = [len(train), len(test)]
    return {
        name: torch.from_numpy(np.array(outputs[name], np.float64))
        for name in case.record["outputs"]
        if name in outputs
    }


def _played(grids: Any, tasks: list[int], actions: np.ndarray) -> dict[str, Any]:
    world = GridWorld(grids, tasks)
    states, rewards, done, best = [grids.coordinates(world.cell[:, 0])], [], [], []
    best.append(world.best_actions()[:, 0])
    for action in actions.T:
        cells, reward, over = world.step(action[:, None])
        states.append(grids.coordinates(cells[:, 0]))
        rewards.append(reward[:, 0])
        done.append(np.full(len(tasks), over))
        best.append(world.best_actions()[:, 0])
    return {
        "states": np.stack(states, 1),
        "rewards": np.stack(rewards, 1),
        "done": np.stack(done, 1),
        "max_return": grids.best_return(tasks),
        "optimal_action_at_start": best[0],
        "optimal_actions": np.stack(best[:-1], 1),
        "permutation": PERMUTATIONS[tasks] if grids.kind == "permuted" else tasks,
    }
