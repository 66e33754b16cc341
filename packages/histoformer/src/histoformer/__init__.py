"""Histoformer: images restored from rain, snow and haze by attention over sorted intensities."""

from histoformer.loss import pearson, pearson_loss
from histoformer.model import VARIANTS, Histoformer, HistoformerConfig, load

__all__ = [
    "VARIANTS",
    "Histoformer",
    "HistoformerConfig",
    "load",
    "pearson",
    "pearson_loss",
]
