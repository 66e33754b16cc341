"""Sliced Recursive Transformer."""

from sret.model import VARIANTS, Sret, SretConfig

__all__ = ["VARIANTS", "Sret", "SretConfig"]
