"""Gateformer: temporal and variate-wise attention with gated representations (2025)."""

from gateformer.model import VARIANTS, Gateformer, GateformerConfig
from gateformer.plugin import Gated

__all__ = ["VARIANTS", "Gated", "Gateformer", "GateformerConfig"]
