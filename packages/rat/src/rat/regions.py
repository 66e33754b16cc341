"""Partitions of an image into regions: superpixels, grey levels, masks of Segment Anything."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

SAM = "facebook/sam-vit-base"
"""Checkpoint of Segment Anything that is downloaded by default."""


def make_regions(
    image: Float[Tensor, "c h w"], method: str = "felzenszwalb", **options: Any
) -> Int[Tensor, "h w"]:
    """A partition of ``image`` in [0, 1].

    Args:
        image: grey or RGB.
        method: ``felzenszwalb`` or ``slic`` superpixels, ``quantiles`` of the grey level, ``sam``
            (Segment Anything, with the extra ``sam``), or ``one`` region.
        options: of the method.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"regions by {method!r}: must be one of {', '.join(METHODS)}")
    return METHODS[method](image, **options)


def regions_from_felzenszwalb(
    image: Float[Tensor, "c h w"], *, scale: float = 100, sigma: float = 0.8, least: int = 64
) -> Int[Tensor, "h w"]:
    """Graph-based regions (Felzenszwalb and Huttenlocher, 2004).

    Args:
        image: grey or RGB in [0, 1].
        scale: larger makes larger regions.
        sigma: of the Gaussian that smooths first.
        least: pixels of the smallest region.
    """
    from skimage.segmentation import felzenszwalb

    return torch.from_numpy(felzenszwalb(_pixels(image), scale, sigma, least).astype(np.int64))


def regions_from_slic(
    image: Float[Tensor, "c h w"], n: int = 50, *, compactness: float = 0.1
) -> Int[Tensor, "h w"]:
    """About ``n`` superpixels (SLIC); more ``compactness`` makes them squarer."""
    from skimage.segmentation import slic

    found = slic(_pixels(image), n, compactness, channel_axis=-1, convert2lab=False)
    return torch.from_numpy(found.astype(np.int64))


def regions_from_quantiles(image: Float[Tensor, "c h w"], n: int = 6) -> Int[Tensor, "h w"]:
    """``n`` ranges of the grey level with about as many pixels each."""
    grey = image.mean(0)
    levels = torch.linspace(0, 1, n + 1, device=grey.device, dtype=grey.dtype)[1:-1]
    edges = grey.flatten().sort().values[(levels * (grey.numel() - 1)).long()]
    return torch.bucketize(grey, edges, right=True)


def regions_from_sam(
    image: Float[Tensor, "c h w"],
    *,
    model: str = SAM,
    points: int = 32,
    generator: Callable[..., Any] | None = None,
) -> Int[Tensor, "h w"]:
    """The paper's partition: the masks of Segment Anything, painted by area.

    Args:
        image: grey or RGB in [0, 1].
        model: name on the Hugging Face Hub, or a folder.
        points: of the grid of prompts, per side.
        generator: a ``mask-generation`` pipeline of one's own.
    """
    from PIL import Image

    generator = generator or sam_generator(model)
    pixels = Image.fromarray((_pixels(image) * 255).round().astype(np.uint8))
    found = generator(pixels, points_per_batch=64, points_per_crop=points)
    return regions_from_masks(found["masks"], image.shape[-2:])


@functools.cache
def sam_generator(model: str = SAM) -> Callable[..., Any]:
    """Segment Anything as transformers offers it, loaded once per process.

    Raises:
        ModuleNotFoundError: without transformers, which the extra ``sam`` brings.
    """
    try:
        from transformers import pipeline
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "regions by 'sam' need transformers: install formers-rat with its extra [sam]"
        ) from error
    return pipeline("mask-generation", model=model)


def regions_from_masks(
    masks: Sequence[Bool[Tensor, "h w"] | np.ndarray], size: Sequence[int] | None = None
) -> Int[Tensor, "h w"]:
    """One label for each pixel from masks that may overlap or leave pixels out.

    The largest mask is painted first, with label 1, and so on: small ones stay on top. What none
    covers gets the label after the last.

    Raises:
        ValueError: for masks of different sizes, or none and no ``size``.
    """
    planes = [torch.as_tensor(np.asarray(mask)).bool() for mask in masks]
    sizes = {tuple(plane.shape) for plane in planes} | ({tuple(size)} if size else set())
    if len(sizes) != 1:
        raise ValueError(f"masks of one size are needed, got {sorted(sizes)}")
    planes.sort(key=lambda plane: int(plane.sum()), reverse=True)
    regions = torch.full(sizes.pop(), len(planes) + 1)
    for label, plane in enumerate(planes, 1):
        regions[plane] = label
    return regions


def regions_from_nothing(image: Float[Tensor, "c h w"]) -> Int[Tensor, "h w"]:
    """The whole image is one region."""
    return torch.zeros(image.shape[-2:], dtype=torch.int64, device=image.device)


METHODS: dict[str, Callable[..., Tensor]] = {
    "felzenszwalb": regions_from_felzenszwalb,
    "slic": regions_from_slic,
    "quantiles": regions_from_quantiles,
    "sam": regions_from_sam,
    "one": regions_from_nothing,
}


def _pixels(image: Float[Tensor, "c h w"]) -> np.ndarray:
    """RGB in [0, 1] as segmenters take it."""
    planes = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1)
    return rearrange(planes.numpy(), "c h w -> h w c")
