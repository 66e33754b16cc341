"""DRCT: super-resolution by densely connected window transformers."""

from drct.model import DRCT, VARIANTS, DRCTConfig

__all__ = ["DRCT", "VARIANTS", "DRCTConfig"]
