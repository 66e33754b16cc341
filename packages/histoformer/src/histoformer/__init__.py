"""Histoformer: images restored from rain, snow and haze by attention over sorted intensities."""

from histoformer.loss import pearson, pearson_loss
from histoformer.model import VARIANTS, Histoformer, HistoformerConfig

__all__ = [
    "VARIANTS",
    "Histoformer",
    "HistoformerConfig",
    "pearson",
    "pearson_loss",
]
