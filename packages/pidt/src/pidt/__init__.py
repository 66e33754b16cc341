"""PIDT: a Physics-Informed Decision Transformer for power restoration (2024)."""

from pidt.episode import Episode
from pidt.feeder import Feeder, load_feeder
from pidt.model import PIDT, VARIANTS, PIDTConfig
from pidt.optimum import exact_optimum
from pidt.problem import Restoration, Source

__all__ = [
    "PIDT",
    "VARIANTS",
    "Episode",
    "Feeder",
    "PIDTConfig",
    "Restoration",
    "Source",
    "exact_optimum",
    "load_feeder",
]
