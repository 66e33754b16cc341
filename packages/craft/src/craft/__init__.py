"""CRAFT: super-resolution by a transformer that a high-frequency branch refines."""

from craft.model import CRAFT, VARIANTS, CRAFTConfig

__all__ = ["CRAFT", "VARIANTS", "CRAFTConfig"]
