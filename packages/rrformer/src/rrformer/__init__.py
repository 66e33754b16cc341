"""RRFormer: benchmarking ultra-high-definition image reflection removal (2023)."""

from rrformer.features import VGG19
from rrformer.model import VARIANTS, RRFormer, RRFormerConfig

__all__ = ["VARIANTS", "VGG19", "RRFormer", "RRFormerConfig"]
