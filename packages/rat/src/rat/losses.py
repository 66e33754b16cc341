"""The losses of the paper and of the authors' code."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from rat.model import check_regions


class FocalRegionLoss(nn.Module):
    """Absolute error that counts more where a region's mean error is large.

    A pixel's weight is 1 + ``beta`` times the mean error of its region, over that of the worst
    region of the batch; the weights carry no gradient.
    """

    def __init__(self, beta: float = 1e-3) -> None:
        super().__init__()
        self.beta = beta

    def forward(
        self,
        output: Float[Tensor, "b c h w"],
        target: Float[Tensor, "b c h w"],
        regions: Shaped[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        """A scalar; ``regions`` as the network takes them, at full resolution."""
        error = (output - target).abs()
        weight = self.weights(error, regions)
        return (error * weight).mean()

    @torch.no_grad()
    def weights(
        self, error: Float[Tensor, "b c h w"], regions: Shaped[Tensor, "..."]
    ) -> Float[Tensor, "b 1 h w"]:
        """The weight of each pixel, in [1, 1 + beta]."""
        batch, _, height, width = error.shape
        check_regions(regions, (batch, height, width))
        values, label = regions.expand(batch, height, width).unique(return_inverse=True)
        region = label + len(values) * torch.arange(batch, device=label.device)[:, None, None]
        flat, pixel = region.flatten(), error.mean(1).flatten()
        sums = pixel.new_zeros(2, batch * len(values))
        sums.index_add_(1, flat, torch.stack([pixel, torch.ones_like(pixel)]))
        mean = (sums[0] / sums[1].clamp_min(1))[flat]
        worst = mean.max().clamp_min(torch.finfo(mean.dtype).tiny)
        return 1 + self.beta * (mean / worst).view(batch, 1, height, width)


class CharbonnierLoss(nn.Module):
    """The mean of sqrt(error² + ``epsilon``²)."""

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(
        self, output: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]
    ) -> Float[Tensor, ""]:
        return ((output - target).square() + self.epsilon**2).sqrt().mean()
