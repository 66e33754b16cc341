"""IBMIL's confounders: prototypes of the bags that a first training saw."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rrt_mil.aggregators import pool
from rrt_mil.bags import BagError
from rrt_mil.model import R2TMIL


@torch.no_grad()
def bag_prototypes(
    model: R2TMIL, bags: Iterable[Float[Tensor, "_ features"]], count: int = 8, seed: int = 0
) -> Float[Tensor, "count dim"]:
    """Means of ``count`` clusters of pooled bags, from an AB-MIL (with R²T or without).

    Args:
        model: the classifier of the first training.
        bags: the training bags.
        count: clusters.
        seed: of the first means.

    Raises:
        BagError: for fewer bags than clusters.
    """
    pooled = torch.cat([_pooled(model, bag) for bag in bags])
    if len(pooled) < count:
        raise BagError(f"{count} prototypes of {len(pooled)} bags")
    order = torch.randperm(len(pooled), generator=torch.Generator().manual_seed(seed))
    means = pooled[order[:count]]
    for _ in range(100):
        nearest = torch.cdist(pooled, means).argmin(1)
        moved = torch.stack(
            [
                pooled[nearest == k].mean(0) if (nearest == k).any() else means[k]
                for k in range(count)
            ]
        )
        if moved.allclose(means):
            break
        means = moved
    return means


def read_prototypes(path: str | Path, dim: int) -> Float[Tensor, "count dim"]:
    """The prototypes of a ``.npy`` file, as the authors keep them: [..., dim] of any shape.

    Raises:
        FileNotFoundError: no such file.
        BagError: of another width.
    """
    means = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    if means.shape[-1] != dim:
        raise BagError(f"{path}: prototypes are {means.shape[-1]} wide, expected {dim}")
    return means.reshape(-1, dim)


def _pooled(model: R2TMIL, bag: Tensor) -> Float[Tensor, "1 dim"]:
    found = model.bags(bag)
    return pool(found.scores, found.evidence)[:, 0].cpu()
