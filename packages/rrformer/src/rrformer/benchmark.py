"""The paper's benchmark for anybody's predictions: PSNR, SSIM and LPIPS on 4K and 8K images.

Images are compared strip by strip, so that 8K needs no more memory than a few of them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from image_restoration_kit.images import find_images, read_picture
from image_restoration_kit.metrics import SSIM_WINDOW, quantise
from image_restoration_kit.metrics import ssim as ssim_of
from jaxtyping import UInt8
from torch import Tensor

STRIP = 512
"""Rows that are compared at a time."""
LPIPS_TILE = 512


@dataclass(frozen=True, kw_only=True)
class Score:
    """How one prediction compares with its truth."""

    psnr: float
    """In dB, of all channels at 8 bit; infinite when they are equal."""
    ssim: float
    lpips: float | None
    """Mean over tiles of 512 x 512; ``None`` where its weights are not at hand."""


def pairs(predictions: str | Path, truths: str | Path) -> list[tuple[str, Path, Path]]:
    """Predictions and truths of the same name, by name.

    Raises:
        FileNotFoundError: when a folder is not there, or a truth has no prediction.
    """
    found, expected = (
        {file.stem: file for file in find_images([folder])} for folder in (predictions, truths)
    )
    if missing := sorted(expected.keys() - found.keys()):
        raise FileNotFoundError(
            f"{predictions} lacks {len(missing)} of {len(expected)} predictions, such as "
            f"{missing[0]}"
        )
    return [(name, found[name], expected[name]) for name in sorted(expected)]


def score(
    prediction: UInt8[Tensor, "3 h w"],
    truth: UInt8[Tensor, "3 h2 w2"],
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Score:
    """Compare two images strip by strip; the result is that of the whole images.

    Raises:
        ValueError: for images of different sizes.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"{list(prediction.shape)} against {list(truth.shape)}: sizes differ")
    height, squares, similar, rows = truth.shape[1], 0.0, 0.0, 0
    reach = SSIM_WINDOW - 1
    for top in range(0, height, STRIP):
        a, b = (image[:, top : top + STRIP].double() for image in (prediction, truth))
        squares += (a - b).square().sum().item()
        # Windows of similarity that start in this strip.
        strip = slice(top, min(top + STRIP + reach, height))
        count = strip.stop - strip.start - reach
        if count > 0:
            part = ssim_of(prediction[:, strip], truth[:, strip], on_luma=False)
            similar, rows = similar + part * count, rows + count
    mean = squares / truth.numel()
    return Score(
        psnr=math.inf if not mean else 10 * math.log10(255**2 / mean),
        ssim=similar / rows if rows else math.nan,
        lpips=None if lpips is None else _perceptual(prediction, truth, lpips),
    )


def benchmark(
    found: Iterable[tuple[str, Path, Path]],
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Score]:
    """The score of each pair of files.

    Raises:
        ValueError: naming the file, for sizes that differ or a damaged image.
    """
    scores = {}
    for name, prediction, truth in found:
        ours, theirs = (quantise(_rgb(read_picture(file).color)) for file in (prediction, truth))
        try:
            scores[name] = score(ours, theirs, lpips)
        except ValueError as error:
            raise ValueError(f"{prediction}: {error}") from error
    return scores


def load_lpips() -> Callable[[Tensor, Tensor], Tensor]:
    """AlexNet's LPIPS of torchmetrics.

    Raises:
        RuntimeError: when torchvision or AlexNet's weights are not at hand.
    """
    try:
        from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as lpips

        lpips(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), "alex", normalize=True)
    except Exception as error:  # a download that fails comes as many things
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuntimeError(f"LPIPS needs torchvision and AlexNet's weights: {reason}") from error
    return lambda a, b: lpips(a, b, "alex", normalize=True)


def _perceptual(a: Tensor, b: Tensor, lpips: Callable[[Tensor, Tensor], Tensor]) -> float:
    total, weight = 0.0, 0
    for top in range(0, a.shape[1], LPIPS_TILE):
        for left in range(0, a.shape[2], LPIPS_TILE):
            tiles: list[Any] = [
                image[None, :, top : top + LPIPS_TILE, left : left + LPIPS_TILE].float() / 255
                for image in (a, b)
            ]
            if min(tiles[0].shape[2:]) < 64:  # AlexNet needs that much
                continue
            size = tiles[0].numel()
            total, weight = total + size * lpips(*tiles).item(), weight + size
    return total / weight if weight else math.nan


def _rgb(color: Tensor) -> Tensor:
    return color.expand(3, -1, -1)
