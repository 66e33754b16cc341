"""The attention over a slide's patches as a picture."""

from pathlib import Path

import numpy as np
import torch
from attention_core import atomic_path
from jaxtyping import Float, Int
from torch import Tensor

from rrt_mil.bags import BagError

COLD, WARM, HOT = (59, 76, 192), (221, 221, 221), (180, 4, 38)
LARGEST = 2000
"""Most pixels along a side."""


def attention_picture(
    coordinates: Int[Tensor, "instances 2"],
    attention: Float[Tensor, "weights"],
    patch: int | None = None,
) -> np.ndarray:
    """A cell per patch at its place in the slide, from blue (least attended) to red, [y, x, 3].

    Colours go by rank, for the weights of thousands of patches differ by orders of magnitude.

    Args:
        coordinates: (x, y) of the patches' corners.
        attention: weight of each patch.
        patch: side of a patch in the same unit; by default the least distance of two corners.

    Raises:
        BagError: other than one weight per patch, or a slide of more cells than a picture shows.
    """
    if len(coordinates) != len(attention):
        raise BagError(f"{len(coordinates)} coordinates for {len(attention)} attention weights")
    corners = coordinates.double().numpy()
    step = float(patch or _spacing(corners))
    cells = np.floor((corners - corners.min(0)) / step).astype(int)
    width, height = cells.max(0) + 1
    if max(width, height) > LARGEST:
        raise BagError(f"{width} x {height} patches: too many for a picture of {LARGEST} pixels")
    order = attention.argsort(stable=True)
    rank = torch.empty(len(attention)).scatter(
        0, order, torch.linspace(0, 1, len(attention)) if len(attention) > 1 else torch.ones(1)
    )
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[cells[:, 1], cells[:, 0]] = _colours(rank.numpy())
    scale = max(1, min(LARGEST // max(width, height), 32))
    return picture.repeat(scale, 0).repeat(scale, 1)


def save_picture(picture: np.ndarray, path: str | Path) -> Path:
    """Write a picture; the suffix tells the format."""
    from PIL import Image

    with atomic_path(path) as part:
        Image.fromarray(picture).save(part)
    return Path(path)


def _spacing(corners: np.ndarray) -> float:
    gaps = [np.diff(np.unique(axis)) for axis in corners.T]
    return min((gap.min() for gap in gaps if len(gap)), default=1.0)


def _colours(rank: np.ndarray) -> np.ndarray:
    stops = np.array([COLD, WARM, HOT], float)
    return np.stack([np.interp(rank, (0, 0.5, 1), stops[:, c]) for c in range(3)], 1).astype("u1")
