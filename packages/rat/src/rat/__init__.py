"""RAT: medical image restoration by attention within the regions of a partition."""

from rat.losses import CharbonnierLoss, FocalRegionLoss
from rat.model import RAT, VARIANTS, RATConfig
from rat.regions import make_regions, regions_from_masks, regions_from_slic

__all__ = [
    "RAT",
    "VARIANTS",
    "CharbonnierLoss",
    "FocalRegionLoss",
    "RATConfig",
    "make_regions",
    "regions_from_masks",
    "regions_from_slic",
]
