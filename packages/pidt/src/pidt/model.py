"""The Decision Transformer, and the four ways of this package to let physics into it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    Dropout,
    PaperModel,
    attend,
    cached_per_size,
    read_checkpoint,
    require,
    require_choice,
    require_fraction,
    require_positive,
    split_heads,
)
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}
"""By the names of GPT-2 configurations; ``gelu_new`` is GPT-2's own."""


@dataclass(frozen=True, kw_only=True)
class PIDTConfig:
    """Sizes of the network, and how physics takes part (our definition: the paper's is not known).

    The default is the 33-bus feeder with 15 switches.
    """

    state_dim: int = 91
    """Length of an observation, with the scenario and the mask if they are given."""
    actions: int = 16
    """Switches, and stop."""
    dim: int = 128
    layers: int = 3
    heads: int = 1
    inner: int | None = None
    """Width of the feed-forward part; four times ``dim`` by default."""
    steps: int = 32
    """Longest episode: rows of the time-step table."""
    positions: int = 1024
    """Rows of GPT-2's position table, of which the Decision Transformer uses the first."""
    activation: str = "relu"
    norm_eps: float = 1e-5
    dropout: float = 0.1
    action_tanh: bool = False
    """Actions in (-1, 1), as in continuous control; switches want logits."""
    mask: bool = True
    """Infeasible actions are ruled out, in the loss and at decision time."""
    penalty: float = 0.0
    """Weight of the probability given to infeasible actions, in the loss."""
    feature: bool = False
    """The feasible mask is the last part of the state."""
    context: bool = False
    """The scenario is part of the state, after the observation."""

    def __post_init__(self) -> None:
        require_positive(
            self, "state_dim", "actions", "dim", "layers", "heads", "steps", "positions"
        )
        require_choice(self, "activation", tuple(ACTIVATIONS))
        require_fraction(self, "dropout")
        require(self, "heads", self.dim % self.heads == 0, f"must divide dim={self.dim}")
        good = self.inner is None or self.inner >= 1
        require(self, "inner", good, "must be None or an integer of at least 1")
        good = math.isfinite(self.penalty) and self.penalty >= 0
        require(self, "penalty", good, "must be finite and at least 0")


VARIANTS = {
    "pidt_33": PIDTConfig(),
    "pidt_33_penalty": PIDTConfig(mask=False, penalty=1.0),
    "pidt_33_feature": PIDTConfig(mask=False, feature=True, state_dim=91 + 16),
    "dt_33": PIDTConfig(mask=False),
    "pidt_33_gpt2": PIDTConfig(dim=768, layers=12, heads=12, activation="gelu_new"),
}
"""Our choices for the 33-bus feeder, an ablation each, and GPT-2's own sizes; the paper's are not
known."""


class Predictions(NamedTuple):
    """What the sequence so far foretells at each step."""

    actions: Float[Tensor, "batch steps actions"]
    """Logits (or values in (-1, 1)), from the state token."""
    states: Float[Tensor, "batch steps state"]
    """The next state, from the action token."""
    returns: Float[Tensor, "batch steps 1"]
    """The next return to go, from the action token."""


class Block(nn.Module):
    """GPT-2's: causal attention, then a feed-forward network, both pre-norm."""

    def __init__(self, config: PIDTConfig) -> None:
        super().__init__()
        dim, inner = config.dim, config.inner or 4 * config.dim
        self.heads, self.rate = config.heads, config.dropout
        self.attention_norm = nn.LayerNorm(dim, config.norm_eps)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim, config.norm_eps)
        self.rise = nn.Linear(dim, inner)
        self.fall = nn.Linear(inner, dim)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], allowed: Bool[Tensor, "*batch tokens tokens"]
    ) -> Float[Tensor, "batch tokens dim"]:
        parts = split_heads(self.qkv(self.attention_norm(x)), self.heads)
        attended = attend(*parts, allowed, dropout=self.rate if self.training else 0.0)
        merged = rearrange(attended, "batch heads tokens dim -> batch tokens (heads dim)")
        x = x + self.dropout(self.out(merged))
        return x + self.dropout(self.fall(self.activation(self.rise(self.mlp_norm(x)))))


class PIDT(PaperModel):
    """Predicts the next switch from returns to go, states and switches so far.

    Each step is three tokens: return to go, state, action. Parameters follow the Decision
    Transformer with a GPT-2 trunk, so that its checkpoints and GPT-2's load.
    """

    variants = VARIANTS

    def __init__(self, config: PIDTConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.embed_timestep = nn.Embedding(config.steps, dim)
        self.embed_return = nn.Linear(1, dim)
        self.embed_state = nn.Linear(config.state_dim, dim)
        self.embed_action = nn.Linear(config.actions, dim)
        self.embed_norm = nn.LayerNorm(dim)
        self.positions = nn.Embedding(config.positions, dim)
        # GPT-2's table of words, which takes no part: kept so that layouts match.
        self.words = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim, config.norm_eps)
        self.predict_state = nn.Linear(dim, config.state_dim)
        self.predict_action = nn.Linear(dim, config.actions)
        self.predict_return = nn.Linear(dim, 1)
        self.apply(_initialise)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        heads: int = 1,
        activation: str = "relu",
        action_tanh: bool = True,
        norm_eps: float = 1e-5,
    ) -> Self:
        """The model with the weights of a transformers ``DecisionTransformerModel``.

        Args:
            checkpoint: the file, or its state dict.
            heads: of attention, which the tensors don't tell; the others too.
            activation: of the feed-forward part.
            action_tanh: whether actions end in a tanh.
            norm_eps: of the trunk's norms.

        Raises:
            CheckpointError: for a file that is not one of this model.
        """
        from pidt.official import convert

        return cls.from_state(
            *convert(
                read_checkpoint(checkpoint),
                heads=heads,
                activation=activation,
                action_tanh=action_tanh,
                norm_eps=norm_eps,
            )
        )

    @classmethod
    def from_gpt2(cls, folder: str | Path, **sizes: object) -> Self:
        """A model whose trunk starts from a pretrained GPT-2, the rest fresh.

        Args:
            folder: with GPT-2's ``config.json`` and ``model.safetensors``.
            **sizes: fields of :class:`PIDTConfig` that GPT-2 does not settle.

        Raises:
            CheckpointError: when it is no GPT-2.
        """
        from pidt.official import read_gpt2

        config, trunk = read_gpt2(folder, sizes)
        model = cls(config)
        model.load_state_dict(model.state_dict() | trunk)
        return model

    def forward(
        self,
        states: Float[Tensor, "batch steps state"],
        actions: Float[Tensor, "batch steps actions"],
        returns_to_go: Float[Tensor, "batch steps 1"],
        timesteps: Int[Tensor, "batch steps"],
        attention_mask: Bool[Tensor, "batch steps"] | Int[Tensor, "batch steps"] | None = None,
    ) -> Predictions:
        """Predictions at each step.

        Args:
            states: observations.
            actions: one-hot; the one of the step to decide may be anything.
            returns_to_go: what is still to be earned, before each step.
            timesteps: from 0.
            attention_mask: 0 where a step is padding; what is predicted there means nothing.
        """
        time = self.embed_timestep(timesteps)
        parts = (
            self.embed_return(returns_to_go),
            self.embed_state(states),
            self.embed_action(actions),
        )
        tokens = torch.stack([part + time for part in parts], 2)
        x = self.embed_norm(rearrange(tokens, "batch steps three dim -> batch (steps three) dim"))
        x = self.dropout(x + self.positions.weight[0])
        allowed = causal(x.shape[1], x.device)
        if attention_mask is not None:
            present = repeat(
                attention_mask.bool(), "batch steps -> batch 1 1 (steps three)", three=3
            )
            # Padding sees itself, or its softmax would be over nothing.
            itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            allowed = allowed & present | itself
        for block in self.blocks:
            x = block(x, allowed)
        x = rearrange(self.norm(x), "batch (steps three) dim -> three batch steps dim", three=3)
        logits = self.predict_action(x[1])
        return Predictions(
            logits.tanh() if self.config.action_tanh else logits,
            self.predict_state(x[2]),
            self.predict_return(x[2]),
        )

    def loss(
        self,
        logits: Float[Tensor, "*batch actions"],
        targets: Int[Tensor, "*batch"],
        feasible: Bool[Tensor, "*batch actions"],
    ) -> Float[Tensor, "*batch"]:
        """Cross entropy with the physics of the configuration (our definition).

        With ``mask`` infeasible actions have no probability; with ``penalty`` μ the loss is
        CE + μ Σ π(a) over the infeasible a. A target that is itself infeasible stays allowed.
        """
        known = feasible | F.one_hot(targets, logits.shape[-1]).bool()
        inside = logits.masked_fill(~known, -torch.inf) if self.config.mask else logits
        loss = F.cross_entropy(inside.flatten(0, -2), targets.flatten(), reduction="none")
        loss = loss.unflatten(0, targets.shape) if targets.ndim else loss[0]
        if self.config.penalty:
            loss = loss + self.config.penalty * (logits.softmax(-1) * ~feasible).sum(-1)
        return loss


@cached_per_size
def causal(tokens: int, device: torch.device) -> Tensor:
    """True where a token may look: at itself and before."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()


def _initialise(module: nn.Module) -> None:
    """GPT-2's: normal of deviation 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
