"""Figures as people read them."""

import re
from typing import Any

from attention_core.paper import Paper


def si(value: int | float) -> str:
    """Three digits and a prefix: ``18.3 G``."""
    power = 0
    while abs(value) >= 999.5 and power < 5:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {' kMGTP'[power]}".strip()


def duration(seconds: float) -> str:
    """Three digits in ms or s."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def mebibytes(size: int | None) -> str:
    """Whole MiB; a dash where it is not known."""
    return "-" if size is None else f"{size / 2**20:.0f} MiB"


def published(paper: Paper) -> str:
    """Venue and year; a venue often names its own year."""
    named = re.search(r"\b(19|20)\d\d\b", paper.venue)
    return paper.venue if named else f"{paper.venue} {paper.year}"


def entry(value: Any) -> str:
    """An entry of a table: floats with four digits, the rest as it stands."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
