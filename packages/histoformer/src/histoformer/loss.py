"""The correlation loss: restored pixels in the same order as the truth's."""

import torch
from jaxtyping import Float
from torch import Tensor


def pearson(
    output: Float[Tensor, "b *image"], target: Float[Tensor, "b *image"]
) -> Float[Tensor, "b"]:
    """Correlation of each image with its truth over all pixels and channels, from -1 to 1."""
    x, y = (image.flatten(1) for image in (output, target))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    spread = x.square().sum(1).sqrt() * y.square().sum(1).sqrt()
    return (x * y).sum(1) / (spread + 1e-6)


def pearson_loss(
    output: Float[Tensor, "b *image"], target: Float[Tensor, "b *image"]
) -> Float[Tensor, ""]:
    """(1 - correlation) / 2, a mean over the images where that is finite."""
    loss = (1 - pearson(output, target)) / 2
    finite = loss.isfinite()
    # Where, not a product: a gradient through NaN would be NaN even when it counts for nothing.
    return torch.where(finite, loss, 0).sum() / finite.sum()
