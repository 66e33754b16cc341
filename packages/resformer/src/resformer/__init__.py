"""ResFormer: Scaling ViTs with Multi-Resolution Training (CVPR 2023)."""

from resformer.consistency import CONSISTENCY, multi_size_losses
from resformer.model import VARIANTS, ResFormer, ResFormerConfig, View

__all__ = ["CONSISTENCY", "VARIANTS", "ResFormer", "ResFormerConfig", "View", "multi_size_losses"]
