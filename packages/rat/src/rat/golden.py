"""Running the golden cases: the network, a layer or block of it, the losses."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attention_core import GoldenCase, load_state
from einops import rearrange
from torch import Tensor, nn

from rat.attention import group_by_region
from rat.losses import CharbonnierLoss, FocalRegionLoss
from rat.model import RAT, NAFBlock, RATConfig, RegionBlock
from rat.official import convert_entries, name

MASKED = -1000.0
"""What the authors add to the logits of pairs from different regions."""


def run_golden(case: GoldenCase) -> Mapping[str, Any]:
    """The case's outputs, and gradients of the mean square of the first of them."""
    state, given = case.state_dict(), case.inputs()
    if not state:
        return _losses(given)
    config = case.config
    labels = next((given[key] for key in ("mask", "labels", "regions") if key in given), None)
    if "intro.weight" in state:
        network = RAT.from_official(
            state,
            scale=config.get("scale", 1),
            heads=config.get("heads", 8),
            window=config.get("window_size", 4),
        )
        model: nn.Module = network
        prefix, step = "", network.config.reduction
        call: Callable[[Tensor], Tensor] = lambda x: model(x, labels)  # noqa: E731
    else:
        model, prefix = _part(state, config)
        step = 1
        call = lambda x: _on_maps(model, x, labels)  # noqa: E731
    model = model.to(case.dtype).train(case.record.get("mode") == "train")
    image = next(given[key] for key in ("image", "x", "input", "inp") if key in given)
    image = image.requires_grad_()
    out = call(image)
    found: dict[str, Any] = {"out": out, "output": out}
    target = given.get("label", given.get("target"))
    if labels is not None:
        small = labels[:, ::step, ::step].flatten(1)
        found["additive_mask"] = MASKED * (small[:, :, None] != small[:, None, :])
    if target is not None and labels is not None:
        found["loss"] = FocalRegionLoss(config.get("beta", 1e-3))(out, target, labels)
    out.square().mean().backward()
    weights = dict(model.named_parameters())
    for key, expected in case.record["outputs"].items():
        if key in ("grad:input", "grad:image", "grad:x"):
            found[key] = image.grad
        elif key.startswith("grad:"):
            gradient = weights[name(key.removeprefix("grad:").removeprefix(prefix))].grad
            found[key] = None if gradient is None else gradient.reshape(expected["shape"])
    return found


def _part(state: dict[str, Tensor], config: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """A block, a layer or a NAF block with its weights, and the prefix of their names."""
    inside = next(key for key in state if key.endswith(("lambda_ra", "norm1.weight")))
    first = next(part for part in inside.split(".") if part in ("layers", "lambda_ra", "norm1"))
    prefix = inside.partition(first)[0]
    own = {key.removeprefix(prefix): value for key, value in state.items()}
    if first == "norm1":
        part: nn.Module = NAFBlock(len(own["norm1.weight"]))
    else:
        layer = {key.removeprefix("layers.0."): value for key, value in own.items()}
        hidden, dim = layer["mlp_ra.fc1.weight"].shape[:2]
        block = RegionBlock(
            RATConfig(
                width=dim // 4,
                layers=1 + max((int(k.split(".")[1]) for k in own if k[:6] == "layers"), default=0),
                heads=config.get("heads", config.get("num_heads", 8)),
                window=config.get("window_size", 4),
                mlp_ratio=config.get("mlp_ratio", hidden / dim),
            )
        )
        part = block if first == "layers" else block.layers[0]
    load_state(part, convert_entries(own))
    return part, prefix


def _on_maps(part: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    maps = rearrange(x, "b dim h w -> b h w dim")
    out = part(maps) if labels is None else part(maps, group_by_region(labels.flatten(1)))
    return rearrange(out, "b h w dim -> b dim h w")


def _losses(given: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    output, target, regions = given["output"].requires_grad_(), given["target"], given["mask"]
    focal = [FocalRegionLoss(beta)(output, target, regions) for beta in (1e-3, 1.0)]
    losses = torch.stack([*focal, CharbonnierLoss()(output, target)])
    (gradient,) = torch.autograd.grad(focal[1], output)
    return {"losses": losses, "grad:output_beta1": gradient}
