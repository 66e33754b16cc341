"""DQN and PPO of Stable-Baselines3 on the environments (needs the extra ``baselines``)."""

from typing import Any

import numpy as np
import torch

from pidt.episode import Episode
from pidt.feeder import Array
from pidt.policies import Policy

ALGORITHMS = ("dqn", "ppo")


def learn(env: Any, algorithm: str, steps: int, seed: int = 0, **settings: Any) -> Any:
    """Train an agent of Stable-Baselines3 for ``steps`` environment steps.

    Raises:
        ValueError: for an algorithm that is not ``dqn`` or ``ppo``.
    """
    import stable_baselines3

    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r}: must be one of {', '.join(ALGORITHMS)}")
    if algorithm == "dqn":
        settings = {"learning_starts": 500, "exploration_fraction": 0.4, "gamma": 1.0,
                    "learning_rate": 5e-4, "target_update_interval": 500, **settings}  # fmt: skip
        agent: Any = stable_baselines3.DQN("MlpPolicy", env, seed=seed, device="cpu", **settings)
    else:
        settings = {"n_steps": 512, "gamma": 1.0, "ent_coef": 0.01, **settings}
        agent = stable_baselines3.PPO("MlpPolicy", env, seed=seed, device="cpu", **settings)
    return agent.learn(steps)


def scores(agent: Any, observations: Array) -> Array:
    """Q values (DQN) or logits (PPO) of every action."""
    x, _ = agent.policy.obs_to_tensor(observations)
    with torch.no_grad():
        if hasattr(agent, "q_net"):
            return agent.q_net(x).numpy()
        return agent.policy.get_distribution(x).distribution.logits.numpy()


def agent_policy(agent: Any, *, context: bool, masked: bool) -> Policy:
    """Its best action, among the feasible ones where ``masked``."""

    def decide(episode: Episode) -> int:
        problem = episode.problem
        parts = [problem.observe(episode.state), *([problem.context] if context else [])]
        found = scores(agent, np.concatenate(parts).astype(np.float32)[None])[0]
        return int(np.where(episode.mask, found, -np.inf).argmax() if masked else found.argmax())

    return decide
