"""DRCT: super-resolution by densely connected window transformers."""

from drct.model import DRCT, VARIANTS, DRCTConfig, load

__all__ = ["DRCT", "VARIANTS", "DRCTConfig", "load"]
