"""R²T-MIL: Feature Re-Embedding for Computational Pathology (CVPR 2024)."""

from rrt_mil.aggregators import Bags
from rrt_mil.encoder import R2T, R2TConfig
from rrt_mil.model import R2TMIL, VARIANTS, R2TMILConfig

__all__ = ["R2T", "R2TMIL", "VARIANTS", "Bags", "R2TConfig", "R2TMILConfig"]
