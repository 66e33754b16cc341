"""PIDT: a Physics-Informed Decision Transformer for power restoration (2024)."""

from typing import Any

from pidt.episode import Episode
from pidt.feeder import Feeder, load_feeder
from pidt.learning import fit
from pidt.model import PIDT, VARIANTS, PIDTConfig
from pidt.optimum import exact_optimum
from pidt.policies import restore, roll_out
from pidt.problem import Restoration, Source
from pidt.trajectories import Trajectories, collect

__all__ = [
    "PIDT",
    "VARIANTS",
    "Episode",
    "Feeder",
    "PIDTConfig",
    "Restoration",
    "RestorationEnv",
    "Source",
    "Trajectories",
    "collect",
    "exact_optimum",
    "fit",
    "load_feeder",
    "restore",
    "roll_out",
]


def __getattr__(name: str) -> Any:
    """The environment on first use: it brings gymnasium."""
    if name == "RestorationEnv":
        from pidt.env import RestorationEnv

        return RestorationEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
