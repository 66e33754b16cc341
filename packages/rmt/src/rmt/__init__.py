"""RMT: Retentive Networks Meet Vision Transformers (CVPR 2024)."""

from rmt.model import (
    BACKBONES,
    RMT,
    VARIANTS,
    RMTBackbone,
    RMTBackboneConfig,
    RMTConfig,
    TokenLabelOutput,
)
from rmt.token_labels import token_label_loss

__all__ = [
    "BACKBONES",
    "RMT",
    "VARIANTS",
    "RMTBackbone",
    "RMTBackboneConfig",
    "RMTConfig",
    "TokenLabelOutput",
    "token_label_loss",
]
