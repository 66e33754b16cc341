"""The in-context learners: AD and DPT on grids, AD on continuous control; with dynamics, DICP."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from attention_core import PaperModel, read_checkpoint, require, require_choice, require_positive
from attention_core.checkpoints import Checkpoint
from einops import pack
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from lhf import official
from lhf.trunk import Fork, Trunk, TrunkConfig

Outputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class GridConfig(TrunkConfig):
    """Of a learner on a grid."""

    size: int = 9
    """Cells along a side of the grid."""
    actions: int = 5
    backbone: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "size", "actions")
        require_choice(self, "backbone", [type(self).backbone])


@dataclass(frozen=True, kw_only=True)
class ADConfig(GridConfig):
    """Algorithm Distillation on a grid."""

    backbone: str = "ad"


@dataclass(frozen=True, kw_only=True)
class DPTConfig(GridConfig):
    """Decision-Pretrained Transformer on a grid."""

    backbone: str = "dpt"


@dataclass(frozen=True, kw_only=True)
class ContinuousADConfig(TrunkConfig):
    """Algorithm Distillation with real observations and actions (Meta-World)."""

    transitions: int = 1000
    dim: int = 64
    heads: int = 8
    inner: int = 256
    observation: int = 11
    action: int = 4
    learn_variance: bool = True
    reward_range: tuple[float, float] = (0.0, 10.0)
    """Predicted rewards are clipped to it, in the loss and by the planner."""
    backbone: str = "continuous_ad"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "observation", "action")
        require_choice(self, "backbone", [type(self).backbone])
        low, high = self.reward_range
        require(self, "reward_range", low < high, "must be (low, high)")


class InContextLearner(PaperModel, ABC):
    """What the backbones share: embedded transitions, a trunk, and heads.

    A window is the embedded past transitions and one query state.
    """

    embed_context: nn.Linear
    embed_query_action: nn.Module
    head_action: nn.Linear
    head_reward: nn.Linear
    query_first: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.trunk = Trunk(config)

    @classmethod
    def from_official(cls, checkpoint: Checkpoint, **settings: Any) -> Self:
        """The model of a ``ckpt-STEP.pt`` of the DICP code, or of its state dict.

        Args:
            checkpoint: file or mapping.
            settings: ``heads`` and ``transitions`` are not in the tensors; by default those of the
                variant of this size.

        Raises:
            CheckpointError: when it is not a checkpoint of this backbone.
        """
        config, state = official.convert(cls.config_class, read_checkpoint(checkpoint), **settings)
        return cls.from_state(config, state)

    def embed(
        self,
        states: Shaped[Tensor, "batch past obs"],
        actions: Shaped[Tensor, "batch past *act"],
        rewards: Shaped[Tensor, "batch past"],
        next_states: Shaped[Tensor, "batch past obs"],
    ) -> Float[Tensor, "batch past dim"]:
        """A token per transition."""
        parts = [states, self.action_vector(actions), rewards, next_states]
        like = self.embed_context.weight.dtype
        parts = [part.to(like) for part in parts]
        return self.embed_context(pack([*parts[:2], parts[2][..., None], parts[3]], "b n *")[0])

    @abstractmethod
    def action_vector(self, actions: Tensor) -> Tensor:
        """What a transition's token reads of an action."""

    @abstractmethod
    def embed_query(self, states: Tensor) -> Float[Tensor, "batch 1 dim"]:
        """The token of the state in which an action is asked for."""

    def window(
        self, context: Float[Tensor, "batch past dim"], query: Float[Tensor, "batch 1 dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Context and query in the backbone's order."""
        return torch.cat([query, context] if self.query_first else [context, query], 1)

    @abstractmethod
    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a training batch costs, part by part; :func:`total` sums it up."""

    def act(
        self, context: Float[Tensor, "batch past dim"], states: Tensor
    ) -> Float[Tensor, "batch out"]:
        """Action logits (or mean and log-variance) of the state after ``context``."""
        tokens = self.window(context, self.embed_query(states))
        return self.head_action(self.trunk(tokens, last=1)[:, 0])

    def imagine(
        self, context: Float[Tensor, "batch past dim"], states: Tensor, actions: Tensor
    ) -> Outputs:
        """Action output, and reward and next state of each of ``actions`` ([batch, candidates]).

        All candidates share one pass over the window.
        """
        candidates = self.embed_query_action(actions)
        tokens = torch.cat([self.window(context, self.embed_query(states)), candidates], 1)
        count = candidates.shape[1]
        out = self.trunk(tokens, last=count + 1, fork=Fork(leaves=count))
        return {"action": self.head_action(out[:, 0]), **self.predicted(out[:, 1:])}

    def predicted(self, out: Float[Tensor, "*batch dim"]) -> Outputs:
        """The dynamics heads, read at an action's token."""
        return {"reward": self.head_reward(out)}

    def _inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments of ``forward``; AD asks for the outcome of the action that it is to choose."""
        names = ["query_states", "states", "actions", "rewards", "next_states"]
        given = {name: batch[name] for name in names}
        if self.config.dynamics:
            given["query_actions"] = batch.get("query_actions", batch["target_actions"])
        return given

    def _forward(
        self, query: Tensor, context: Tensor, query_actions: Tensor | None, last: int
    ) -> tuple[Tensor, Outputs]:
        """States that give the actions, and the outputs of the dynamics heads."""
        tokens = self.window(context, query)
        if not self.config.dynamics:
            return self.trunk(tokens, last=last), {}
        if query_actions is None:
            raise ValueError("query_actions=None: a model with dynamics reads the action taken")
        asked = self.embed_query_action(query_actions)[:, None]
        out = self.trunk(torch.cat([tokens, asked], 1), last=last + 1)
        return out[:, :-1], self.predicted(out[:, -1])


class GridLearner(InContextLearner):
    """A learner on a grid: cells and actions are classes."""

    def __init__(self, config: GridConfig) -> None:
        super().__init__(config)
        self.embed_context = nn.Linear(4 + config.actions + 1, config.dim)
        self.head_action = nn.Linear(config.dim, config.actions)
        if config.dynamics:
            self.head_reward = nn.Linear(config.dim, 2)
            self.head_next_state = nn.Linear(config.dim, config.size**2)

    def action_vector(self, actions: Tensor) -> Tensor:
        one_hot = torch.eye(self.config.actions, device=actions.device)
        return one_hot[actions.long()]

    def predicted(self, out: Float[Tensor, "*batch dim"]) -> Outputs:
        return {"reward": self.head_reward(out), "next_state": self.head_next_state(out)}

    def explore(
        self,
        context: Float[Tensor, "batch past dim"],
        paths: Float[Tensor, "batch paths steps dim"],
        states: Float[Tensor, "batch paths 2"],
    ) -> Outputs:
        """Reward and next state of every action at the end of imagined paths after ``context``.

        Where the query stands last, all paths share one pass over the context.
        """
        count, actions = paths.shape[1], self.config.actions
        every = torch.arange(actions, device=context.device)
        leaves = self.embed_query_action(every).expand(*paths.shape[:2], -1, -1)
        query = self.embed_query(states.flatten(0, 1)).unflatten(0, paths.shape[:2])
        if self.query_first:
            past = context[:, None].expand(-1, count, -1, -1)
            tokens = torch.cat([query, past, paths, leaves], 2).flatten(0, 1)
            out = self.trunk(tokens, last=actions, fork=Fork(leaves=actions))
            out = out.unflatten(0, paths.shape[:2])
        else:
            ends = torch.cat([paths, query, leaves], 2)
            fork = Fork(count, paths.shape[2] + 1, actions)
            tokens = torch.cat([context, ends.flatten(1, 2)], 1)
            out = self.trunk(tokens, last=count * ends.shape[2], fork=fork)
            out = out.unflatten(1, ends.shape[1:3])[:, :, -actions:]
        return self.predicted(out)

    def losses(self, batch: Mapping[str, Tensor]) -> Outputs:
        """Cross-entropies and accuracies of a training batch (:class:`lhf.data.Windows`).

        ``batch`` holds ``target_actions`` beside the inputs, and with dynamics ``target_rewards``
        and ``target_next_states`` (cell numbers, row by row). ``loss`` is their sum; the weight of
        the dynamics is the caller's to change.
        """
        found = self(**self._inputs(batch))
        target = batch["target_actions"].long()
        logits = found["action"]
        if logits.ndim == 3:
            target = target[:, None].expand(logits.shape[:2])
        pairs = {"action": (logits, target)}
        if self.config.dynamics:
            for part in ("reward", "next_state"):
                pairs[part] = found[part], batch[f"target_{part}s"].long()
        losses: Outputs = {}
        for part, (scores, truth) in pairs.items():
            losses[f"loss_{part}"] = F.cross_entropy(scores.flatten(0, -2), truth.flatten())
            losses[f"acc_{part}"] = (scores.argmax(-1) == truth).float().mean()
        return losses


class AD(GridLearner):
    """Algorithm Distillation: the source's next action, after the transitions before it.

    With ``config.dynamics`` it is DICP's AD, which also predicts what the action brings.
    """

    def __init__(self, config: ADConfig) -> None:
        super().__init__(config)
        self.embed_query_state = nn.Embedding(config.size**2, config.dim)
        if config.dynamics:
            self.embed_query_action = nn.Embedding(config.actions, config.dim)

    def embed_query(self, states: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 1 dim"]:
        row, column = states.long().unbind(-1)
        return self.embed_query_state(row * self.config.size + column)[:, None]

    def forward(
        self,
        query_states: Float[Tensor, "batch 2"],
        states: Float[Tensor, "batch past 2"],
        actions: Int[Tensor, "batch past"],
        rewards: Float[Tensor, "batch past"],
        next_states: Float[Tensor, "batch past 2"],
        query_actions: Int[Tensor, " batch"] | None = None,
    ) -> dict[str, Tensor]:
        """``action`` logits [batch, actions]; with dynamics also ``reward`` and ``next_state``.

        Args:
            query_states: (row, column) in which an action is asked for.
            states: of the past transitions, oldest first; then their other parts.
            actions: 0 to ``config.actions - 1``.
            rewards: 0 or 1.
            next_states: where the actions led.
            query_actions: the action whose outcome is asked for; with dynamics only.
        """
        context = self.embed(states, actions, rewards, next_states)
        out, outcome = self._forward(self.embed_query(query_states), context, query_actions, 1)
        return {"action": self.head_action(out[:, 0]), **outcome}


class DPT(GridLearner):
    """Decision-Pretrained Transformer: the optimal action of a state, from any context.

    The query stands first and every context position answers it; the first answer has seen one
    transition.
    """

    query_first: ClassVar[bool] = True

    def __init__(self, config: DPTConfig) -> None:
        super().__init__(config)
        # Read by nothing without dynamics, and the linear one never: the checkpoints hold them.
        self.embed_query_state = nn.Linear(2, config.dim)
        self.embed_query_action = nn.Embedding(config.actions, config.dim)

    def embed_query(self, states: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 1 dim"]:
        """The token of a transition of which nothing but the state is known."""
        weight = self.embed_context.weight
        return F.linear(states.to(weight.dtype), weight[:, :2], self.embed_context.bias)[:, None]

    def forward(
        self,
        query_states: Float[Tensor, "batch 2"],
        states: Float[Tensor, "batch past 2"],
        actions: Int[Tensor, "batch past"],
        rewards: Float[Tensor, "batch past"],
        next_states: Float[Tensor, "batch past 2"],
        query_actions: Int[Tensor, " batch"] | None = None,
    ) -> dict[str, Tensor]:
        """As :class:`AD`, but ``action`` [batch, past, actions] answers after each transition."""
        context = self.embed(states, actions, rewards, next_states)
        query = self.embed_query(query_states)
        out, outcome = self._forward(query, context, query_actions, context.shape[1])
        return {"action": self.head_action(out), **outcome}


class ContinuousAD(InContextLearner):
    """Algorithm Distillation for continuous control: a Gaussian over the source's next action."""

    def __init__(self, config: ContinuousADConfig) -> None:
        super().__init__(config)
        outputs = config.action * (2 if config.learn_variance else 1)
        self.embed_context = nn.Linear(2 * config.observation + config.action + 1, config.dim)
        self.embed_query_state = nn.Linear(config.observation, config.dim)
        self.head_action = nn.Linear(config.dim, outputs)
        if config.dynamics:
            self.embed_query_action = nn.Linear(config.action, config.dim)
            self.head_reward = nn.Linear(config.dim, 1)

    def action_vector(self, actions: Tensor) -> Tensor:
        return actions

    def embed_query(self, states: Float[Tensor, "batch obs"]) -> Float[Tensor, "batch 1 dim"]:
        return self.embed_query_state(states)[:, None]

    def predicted(self, out: Float[Tensor, "*batch dim"]) -> Outputs:
        return {"reward": self.head_reward(out)[..., 0]}

    def forward(
        self,
        query_states: Float[Tensor, "batch obs"],
        states: Float[Tensor, "batch past obs"],
        actions: Float[Tensor, "batch past act"],
        rewards: Float[Tensor, "batch past"],
        next_states: Float[Tensor, "batch past obs"],
        query_actions: Float[Tensor, "batch act"] | None = None,
    ) -> dict[str, Tensor]:
        """``action``: means, then log-variances where they are learned; ``reward`` unclipped."""
        context = self.embed(states, actions, rewards, next_states)
        out, outcome = self._forward(self.embed_query(query_states), context, query_actions, 1)
        return {"action": self.head_action(out[:, 0]), **outcome}

    def gaussian(self, out: Float[Tensor, "*batch out"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the action; of deviation 1 where it is not learned."""
        if not self.config.learn_variance:
            return out, torch.ones_like(out)
        mean, log_variance = out.chunk(2, -1)
        return mean, (log_variance / 2).exp()

    def losses(self, batch: Mapping[str, Tensor]) -> Outputs:
        """Likelihood of the action, and squared error of the clipped reward."""
        found = self(**self._inputs(batch))
        target = batch["target_actions"]
        if self.config.learn_variance:
            mean, log_variance = found["action"].chunk(2, -1)
            loss = F.gaussian_nll_loss(mean, target, log_variance.exp(), full=True)
        else:
            loss = F.mse_loss(found["action"], target)
        losses = {"loss_action": loss}
        if self.config.dynamics:
            reward = found["reward"].clip(*self.config.reward_range)
            losses["loss_reward"] = F.mse_loss(reward, batch["target_rewards"])
        return losses


def total(losses: Mapping[str, Tensor], strength: float = 1.0) -> Tensor:
    """The loss that is trained: ``strength`` weighs the dynamics (DICP)."""
    dynamics = [losses[k] for k in ("loss_reward", "loss_next_state") if k in losses]
    return losses["loss_action"] + strength * sum(dynamics)


_LONG: dict[str, Any] = {"transitions": 200}
AD.variants = {
    "ad_darkroom": ADConfig(),
    "ad_permuted": ADConfig(**_LONG),
    "ad_large": ADConfig(**_LONG, size=15),
    "ad_key_to_door": ADConfig(**_LONG),
    "ad_light": ADConfig(layers=2, heads=2, dim=16, inner=64),
    "dicp_ad_darkroom": ADConfig(dynamics=True),
    "dicp_ad_permuted": ADConfig(**_LONG, dynamics=True),
    "dicp_ad_large": ADConfig(**_LONG, size=15, dynamics=True),
    "dicp_ad_key_to_door": ADConfig(**_LONG, dynamics=True),
}
DPT.variants = {
    "dpt_darkroom": DPTConfig(),
    "dpt_permuted": DPTConfig(**_LONG),
    "dpt_large": DPTConfig(**_LONG, size=15),
    "dpt_key_to_door": DPTConfig(**_LONG, inner=200),
    "dpt_light": DPTConfig(layers=2, heads=2, dim=16, inner=64),
    "dicp_dpt_darkroom": DPTConfig(dynamics=True),
    "dicp_dpt_permuted": DPTConfig(**_LONG, dynamics=True),
    "dicp_dpt_large": DPTConfig(**_LONG, size=15, dynamics=True),
    "dicp_dpt_key_to_door": DPTConfig(**_LONG, inner=200, dynamics=True),
}
ContinuousAD.variants = {
    "ad_metaworld": ContinuousADConfig(),
    "dicp_ad_metaworld": ContinuousADConfig(dynamics=True),
}
LEARNERS: dict[str, type[InContextLearner]] = {"ad": AD, "dpt": DPT, "continuous_ad": ContinuousAD}
VARIANTS: dict[str, Any] = {**AD.variants, **DPT.variants, **ContinuousAD.variants}


def from_variant(name: str, **changes: Any) -> InContextLearner:
    """The learner of a published variant with fresh weights.

    Raises:
        ValueError: for an unknown variant; the message lists the known ones.
    """
    for learner in LEARNERS.values():
        if name in learner.variants:
            return learner.from_variant(name, **changes)
    raise ValueError(f"no variant {name!r}; there are {', '.join(VARIANTS)}")


def load(folder: Any) -> InContextLearner:
    """The learner that ``save_pretrained`` wrote to ``folder``, whichever it is.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: for a configuration of none of the learners.
    """
    import json
    from pathlib import Path

    file = Path(folder) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"no model in {folder}: it holds no config.json")
    name = json.loads(file.read_text()).get("backbone")
    if name not in LEARNERS:
        raise ValueError(f"{file}: backbone={name!r}; must be one of {', '.join(LEARNERS)}")
    return LEARNERS[name].from_pretrained(folder)
