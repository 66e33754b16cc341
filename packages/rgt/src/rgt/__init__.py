"""RGT: super-resolution by attention to a recursively shrunk map."""

from rgt.model import RGT, VARIANTS, RGTConfig

__all__ = ["RGT", "VARIANTS", "RGTConfig"]
