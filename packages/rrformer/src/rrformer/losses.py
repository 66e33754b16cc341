"""What RRFormer is trained for: pixels, features, and a discriminator."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rrformer.features import CONV5_2, VGG19, normalise

FEATURE_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
"""Of relu1_1 to relu5_1."""
UNALIGNED_WEIGHT = 0.1
WIDTHS = (64, 64, 128, 128, 256, 256, 512, 512, 512, 512)

Image = Float[Tensor, "b 3 h w"]


def gradient_loss(output: Image, target: Image) -> Float[Tensor, ""]:
    """L1 between the differences of neighbours, down and along."""
    down = F.l1_loss(output.diff(dim=2), target.diff(dim=2))
    return down + F.l1_loss(output.diff(dim=3), target.diff(dim=3))


def pixel_loss(output: Image, target: Image) -> Float[Tensor, ""]:
    """0.2 of the mean squared error and 0.4 of :func:`gradient_loss`."""
    return 0.2 * F.mse_loss(output, target) + 0.4 * gradient_loss(output, target)


def feature_loss(vgg: VGG19, output: Image, target: Image) -> Float[Tensor, ""]:
    """L1 between five rectified features of VGG-19, weighted."""
    with torch.no_grad():
        expected = vgg(normalise(target))
    found = vgg(normalise(output))
    parts = zip(FEATURE_WEIGHTS, found, expected, strict=True)
    return torch.stack([weight * F.l1_loss(a, b) for weight, a, b in parts]).sum()


def unaligned_loss(vgg: VGG19, output: Image, target: Image) -> Float[Tensor, ""]:
    """A tenth of the L1 between conv5_2: for pairs that do not match pixel by pixel."""
    with torch.no_grad():
        expected = vgg(normalise(target), [CONV5_2])[0]
    return UNALIGNED_WEIGHT * F.l1_loss(vgg(normalise(output), [CONV5_2])[0], expected)


class Discriminator(nn.Sequential):
    """Tells transmissions from outputs: one logit per image, of any size."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, hidden: int = 1024) -> None:
        layers: list[nn.Module] = []
        for number, (given, width) in enumerate(pairwise((3, *widths))):
            layers.append(nn.Conv2d(given, width, 3, stride=1 + number % 2, padding=1))
            if number:
                layers.append(nn.GroupNorm(32, width))
            layers.append(nn.LeakyReLU(0.2))
        layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(widths[-1], hidden, 1)]
        super().__init__(*layers, nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1), nn.Flatten(0))


def relative_loss(
    real: Float[Tensor, "b"], fake: Float[Tensor, "b"], *, generator: bool
) -> Float[Tensor, ""]:
    """Relativistic average adversarial loss: each is judged against the mean of the others.

    Args:
        real: the discriminator's logits of transmissions.
        fake: of outputs.
        generator: whether outputs should look more real than transmissions, or the reverse.
    """
    targets = (0.0, 1.0) if generator else (1.0, 0.0)
    against = real - fake.mean(), fake - real.mean()
    parts = [
        F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
        for logits, target in zip(against, targets, strict=True)
    ]
    return 0.5 * torch.stack(parts).sum()
