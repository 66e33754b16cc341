"""MATLAB's ``imresize(..., "bicubic")``, which the field shrinks its images with."""

import math
from fractions import Fraction

import torch
from attention_core import cached_per_size
from jaxtyping import Float, Shaped
from torch import Tensor

Scale = float | Fraction


def resize(
    image: Shaped[Tensor, "*batch h w"], scale: Scale, *, antialias: bool = True
) -> Float[Tensor, "*batch H W"]:
    """``image`` by bicubic convolution, sides ``ceil(side * scale)``; not rounded, not clamped.

    The kernel has a = -0.5 and is widened when shrinking unless ``antialias`` is off; beyond the
    border the image is mirrored with its edge repeated. Agrees with MATLAB and BasicSR's
    ``imresize`` to their own rounding, unlike ``torch.nn.functional.interpolate``, OpenCV and
    Pillow, whose kernels or borders differ.

    Args:
        image: any floating-point image, the last two axes height and width.
        scale: any positive number; 1/3 is taken as the fraction.
        antialias: widen the kernel when shrinking.

    Raises:
        ValueError: for a scale that is not positive.
        TypeError: for an image of integers.
    """
    if not image.is_floating_point():
        raise TypeError(f"resize takes floating-point images, got {image.dtype}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale={scale}: must be positive")
    exact = Fraction(scale).limit_denominator(10_000)
    for axis in (-2, -1):
        taps = _taps(image.shape[axis], exact, antialias, image.device)
        weights, places = taps[0].to(image.dtype), taps[1].long()
        shape = (-1, 1) if axis == -2 else (-1,)
        # One pass per tap: memory stays that of the result.
        image = sum(
            (
                image.index_select(axis, place) * weight.view(shape)
                for weight, place in zip(weights, places, strict=True)
            ),
            start=torch.zeros((), dtype=image.dtype, device=image.device),
        )
    return image


def modcrop(image: Float[Tensor, "*batch h w"], scale: int) -> Float[Tensor, "*batch H W"]:
    """Cut at the right and the bottom so that both sides are multiples of ``scale``."""
    height, width = image.shape[-2:]
    return image[..., : height - height % scale, : width - width % scale]


@cached_per_size
def _taps(
    length: int, scale: Fraction, antialias: bool, device: torch.device
) -> Float[Tensor, "2 taps out"]:
    """Weights and source indices of each output position."""
    out = math.ceil(length * scale)
    s = float(scale)
    stretch = s if antialias and s < 1 else 1.0
    width = 4 / stretch
    centre = torch.arange(1, out + 1, dtype=torch.float64) / s + 0.5 * (1 - 1 / s)
    first = torch.floor(centre - width / 2)
    places = first + torch.arange(math.ceil(width) + 2, dtype=torch.float64)[:, None]
    weights = _cubic((centre - places) * stretch)
    weights = weights / weights.sum(0)
    # Mirror with the edge repeated, as often as it takes for images smaller than the kernel.
    index = (places - 1).remainder(2 * length)
    index = torch.where(index < length, index, 2 * length - 1 - index)
    return torch.stack([weights, index]).to(device)


def _cubic(t: Tensor) -> Tensor:
    t = t.abs()
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return near * (t <= 1) + far * ((t > 1) & (t <= 2))
