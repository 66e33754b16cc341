"""PSNR and SSIM as super-resolution reports them: on unrounded luma, a border left out."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

LUMA = (65.481, 128.553, 24.966)
"""Weights of red, green and blue in ITU-R BT.601 luma; with the offset of 16 it spans [16, 235]."""
CHROMA = ((-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_CONSTANTS = (0.01 * 255) ** 2, (0.03 * 255) ** 2

Image = Shaped[Tensor, "*batch c h w"]
"""Floating point in [0, 1], or 8 bit."""
Truth = Shaped[Tensor, "*truth_batch truth_c truth_h truth_w"]
"""Likewise; that its shape is the image's is checked with a message."""


def quantise(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """An image in [0, 1] to 8 bit: clamped, times 255, rounded half to even."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def luma(image: Image) -> Float[Tensor, "*batch 1 h w"]:
    """Y of an RGB image, in [16, 235] and not rounded; a grey image is its own, in [0, 255]."""
    image = _unit(image)
    if image.shape[-3] == 1:
        return image * 255
    return _mix(image, LUMA)[..., None, :, :] + 16


def ycbcr(image: Image) -> Float[Tensor, "*batch 3 h w"]:
    """Y, Cb and Cr of an RGB image, Y in [16, 235], the others in [16, 240], not rounded."""
    chroma = [_mix(_unit(image), weights) + 128 for weights in CHROMA]
    return torch.stack([luma(image)[..., 0, :, :], *chroma], -3)


def psnr(image: Image, target: Truth, *, border: int = 0, on_luma: bool = True) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images.

    Args:
        image: what to judge: RGB or grey, 8 bit or in [0, 1].
        target: the truth.
        border: pixels left out on each side, by custom the scale.
        on_luma: compare Y (in its narrow range, against a peak of 255) instead of all channels.

    Raises:
        ValueError: when the shapes differ, or nothing is left inside the border.
    """
    x, y = _pair(image, target, border, on_luma)
    error = (x - y).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(image: Image, target: Truth, *, border: int = 0, on_luma: bool = True) -> float:
    """Structural similarity, at most 1; arguments as in :func:`psnr`.

    An 11 x 11 Gaussian window of sigma 1.5, only where it fits; colour is the mean of the channels.

    Raises:
        ValueError: as :func:`psnr`, and for images smaller than the window inside the border.
    """
    x, y = _pair(image, target, border, on_luma)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} pixels per side inside the border of {border}; "
            f"the image is {image.shape[-2]} x {image.shape[-1]}"
        )
    t = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    kernel = torch.exp(-t.square() / (2 * SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()

    def blur(z: Tensor) -> Tensor:
        z = z.reshape(-1, 1, *z.shape[-2:])
        return F.conv2d(F.conv2d(z, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = SSIM_CONSTANTS
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index = index / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return index.mean().item()


def _unit(image: Tensor) -> Tensor:
    image = image.double() / 255 if image.dtype == torch.uint8 else image
    if not image.is_floating_point():
        raise TypeError(f"images are floating point in [0, 1] or 8 bit, got {image.dtype}")
    return image


def _mix(image: Tensor, weights: tuple[float, ...]) -> Tensor:
    if image.shape[-3] != 3:
        raise ValueError(f"the image has {image.shape[-3]} channels; colour has 3, grey 1")
    vector = torch.tensor(weights, dtype=image.dtype, device=image.device)
    return rearrange(image, "... c h w -> ... h w c") @ vector


def _pair(image: Tensor, target: Tensor, border: int, on_luma: bool) -> tuple[Tensor, Tensor]:
    if image.shape != target.shape:
        raise ValueError(
            f"images of different shapes: {list(image.shape)} and {list(target.shape)}"
        )
    if border < 0 or min(image.shape[-2:]) <= 2 * border:
        raise ValueError(
            f"border={border}: leaves nothing of an image of {image.shape[-2]} x {image.shape[-1]}"
        )
    inner = slice(border, -border or None)
    pair = (_unit(x).double()[..., inner, inner] for x in (image, target))
    x, y = (luma(z) if on_luma else z * 255 for z in pair)
    return x, y
