"""What a recorded forecasting network printed: losses, gradients, a few steps of training."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attention_core import GoldenCase
from torch import Tensor, nn
from torch.func import functional_call


def forecast_case(
    case: GoldenCase,
    model: nn.Module,
    state: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    call: Callable[..., tuple[Any, ...]] = lambda inputs: (inputs["x"],),
) -> dict[str, Any]:
    """Forecast, gradients, losses and training losses of a network under a golden case.

    Args:
        case: its outputs ``train:losses`` and ``loss:*`` are errors against its input ``y``.
        model: the network.
        state: the authors' checkpoint, its entries asking for gradients.
        weights: what ``model`` makes of it; gradients reach the checkpoint's own entries.
        call: from the case's inputs the arguments of the network.
    """
    inputs = case.inputs()
    x = inputs["x"].requires_grad_()
    forecast = functional_call(model, dict(weights), call(inputs))
    forecast.square().mean().backward()
    outputs: dict[str, Any] = {"forecast": forecast, "grad:input": x.grad}
    outputs |= {f"grad:{key}": value.grad for key, value in state.items()}
    if (y := inputs.get("y")) is not None:
        outputs["loss:mse"] = scalar((forecast - y).square().mean())
        outputs["loss:mae"] = scalar((forecast - y).abs().mean())
        inputs["x"] = x.detach()
        steps = case.record["outputs"].get("train:losses", {"shape": [0]})["shape"][0]
        outputs["train:losses"] = _training_losses(model, call(inputs), y, steps)
    return outputs


def scalar(value: Tensor) -> Tensor:
    """As the cases record one: beside a zero, so that its deviation is relative."""
    return torch.stack([value.detach().double(), torch.zeros((), dtype=torch.float64)])


def _training_losses(model: nn.Module, given: tuple[Any, ...], y: Tensor, steps: int) -> Tensor:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = (model(*given) - y).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64)
