"""How large a model is and what a forward pass costs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """The number of weights (shared ones once); with ``trainable``, of those that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def count_flops(model: nn.Module, *args: Any, **kwargs: Any) -> int:
    """Floating-point operations of one forward pass by torch's counter: 2 per multiply-add.

    It counts matrix products, convolutions and attention; on the meta device nothing is computed.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    return counter.get_total_flops()


def flops_of(build: Callable[[], nn.Module], inputs: Callable[[], Mapping[str, Any]]) -> int:
    """FLOPs of a model that is never allocated: both callables run on the meta device."""
    with torch.device("meta"):
        model = build().eval()
        return count_flops(model, **inputs())
