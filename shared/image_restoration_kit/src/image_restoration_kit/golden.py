"""Running a golden case of a super-resolution network."""

from collections.abc import Callable
from typing import Any

import torch
from attention_core import GoldenCase
from torch import Tensor

from image_restoration_kit.enlarge import pad_to_multiple


def run_golden(
    case: GoldenCase, model: Any, name: Callable[[str], str | None]
) -> dict[str, Tensor | None]:
    """The case's outputs: image, losses, and gradients of the image's mean square.

    Args:
        case: with one input, ``image``, of any size.
        model: the network with the case's weights.
        name: from an entry of the authors' checkpoint to ours.
    """
    image = case.inputs()["image"].requires_grad_()
    model = model.to(case.dtype).train(case.record["mode"] == "train")
    height, width = (side * model.scale for side in image.shape[-2:])
    output = model(pad_to_multiple(image, model.multiple))[..., :height, :width]
    output.square().mean().backward()
    found: dict[str, Tensor | None] = {
        "output": output,
        "loss:l1_l2_to_zero": torch.stack([output.abs().mean(), output.square().mean()]),
        "grad:image": image.grad,
    }
    weights = dict(model.named_parameters())
    for key, expected in case.record["outputs"].items():
        if key not in found and key.startswith("grad:"):
            gradient = weights[name(key.removeprefix("grad:")) or ""].grad
            if gradient is not None:  # 1x1 convolutions there may be linear layers here
                found[key] = gradient.reshape(expected["shape"])
    return found
