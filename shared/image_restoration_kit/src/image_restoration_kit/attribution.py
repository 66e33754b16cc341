"""Which pixels a network's output comes from: local attribution maps (Gu and Dong, CVPR 2021)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def attribution_map(
    network: Any, image: Float[Tensor, "1 c h w"], *, side: int = 8, steps: int = 8
) -> Float[Tensor, "h w"]:
    """How much each pixel contributes to the detail in the middle of the enlarged image.

    Gradients of the summed differences between neighbours, integrated along a path from the
    blurred image to the sharp one.

    Args:
        network: a super-resolution network that takes the image as it is.
        image: to enlarge.
        side: of the square in the middle, in pixels of ``image``.
        steps: on the path.
    """
    top, left = ((length - side) // 2 * network.scale for length in image.shape[-2:])
    large = side * network.scale
    blurred = F.avg_pool2d(F.pad(image, (4,) * 4, "reflect"), 9, 1)
    total = torch.zeros_like(image)
    for step in torch.linspace(1 / steps, 1, steps):
        point = torch.lerp(blurred, image, step).requires_grad_()
        square = network(point)[..., top : top + large, left : left + large]
        detail = square.diff(dim=-1).abs().sum() + square.diff(dim=-2).abs().sum()
        total += torch.autograd.grad(detail, point)[0]
    return (total * (image - blurred)).abs().sum((0, 1)) / steps


def diffusion_index(attribution: Float[Tensor, "h w"]) -> float:
    """100 (1 - Gini coefficient): 100 when all pixels matter alike, 0 when a single one does."""
    values = attribution.flatten().double().sort().values
    ranks = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    gini = 2 * (ranks * values).sum() / (len(values) * values.sum()) - (1 + 1 / len(values))
    return 100 * (1 - gini.item())
