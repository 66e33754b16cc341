"""LHF: Filtering Learning Histories Enhances In-Context Reinforcement Learning (2025)."""

from lhf.filtering import FilterReport, Scores, filter_histories, score_histories
from lhf.grids import GridFamily, GridWorld
from lhf.histories import Histories, History, read_histories, write_histories
from lhf.incontext import InContextResult, evaluate_in_context
from lhf.model import (
    AD,
    DPT,
    VARIANTS,
    ADConfig,
    ContinuousAD,
    ContinuousADConfig,
    DPTConfig,
    from_variant,
)

__all__ = [
    "AD",
    "DPT",
    "VARIANTS",
    "ADConfig",
    "ContinuousAD",
    "ContinuousADConfig",
    "DPTConfig",
    "FilterReport",
    "GridFamily",
    "GridWorld",
    "Histories",
    "History",
    "InContextResult",
    "Scores",
    "evaluate_in_context",
    "filter_histories",
    "from_variant",
    "read_histories",
    "score_histories",
    "write_histories",
]
