"""Two linear layers."""

from dataclasses import dataclass
from typing import Any, Self

import torch.nn.functional as F
from attention_core import Checkpoint, PaperModel, read_checkpoint, require_positive
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Sizes; ``gain`` can't be read off the tensors."""

    dim: int = 8
    hidden: int = 16
    gain: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "dim", "hidden")


VARIANTS = {
    "toy_s": ToyConfig(),
    "toy_loud": ToyConfig(gain=2.0),
    "toy_l": ToyConfig(hidden=32),
}


class Toy(PaperModel):
    """gain * W2 gelu(W1 x)."""

    variants = VARIANTS

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.rise = nn.Linear(config.dim, config.hidden)
        self.fall = nn.Linear(config.hidden, config.dim)

    @classmethod
    def from_official(cls, checkpoint: Checkpoint, *, gain: float = 1.0) -> Self:
        """The authors' weights."""
        state: dict[str, Any] = read_checkpoint(checkpoint)
        hidden, dim = state["fc1.weight"].shape
        names = {"fc1": "rise", "fc2": "fall"}
        state = {names.get(k[:3], k[:3]) + k[3:]: v for k, v in state.items()}
        return cls.from_state(ToyConfig(dim=dim, hidden=hidden, gain=gain), state)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        return self.config.gain * self.fall(F.gelu(self.rise(x)))
