"""SReT: Sliced Recursive Transformer (ECCV 2022)."""

from sret.distillation import Teacher, distillation_loss
from sret.model import VARIANTS, SReT, SReTConfig

__all__ = ["VARIANTS", "SReT", "SReTConfig", "Teacher", "distillation_loss"]
