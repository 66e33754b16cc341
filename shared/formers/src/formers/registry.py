"""Finding the papers that are installed: the entry-point group ``formers.papers``."""

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint

from attention_core import Paper

GROUP = "formers.papers"


class PaperError(Exception):
    """A paper that is not installed, or whose package does not load."""


@dataclass(frozen=True)
class Installed:
    """A registered paper: what it says of itself, or why it can't."""

    name: str
    paper: Paper | None
    error: str = ""


def entry_points() -> dict[str, EntryPoint]:
    """The registered papers by name."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def installed() -> Iterator[Installed]:
    """Every registered paper; one that does not load comes with its error."""
    for name, entry in entry_points().items():
        try:
            yield Installed(name, _load(entry))
        except PaperError as error:
            yield Installed(name, None, str(error))


def find(name: str) -> Paper:
    """The paper registered as ``name``.

    Raises:
        ValueError: no such paper; the message lists the known ones.
        PaperError: it is registered, but its package does not load.
    """
    entries = entry_points()
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise ValueError(f"no paper {name!r} is installed; installed: {known}")
    return _load(entries[name])


def _load(entry: EntryPoint) -> Paper:
    try:
        paper = entry.load()
    except Exception as error:  # whatever a stranger's package raises is its error, not ours
        reason = " ".join(str(error).split()) or "no message"
        raise PaperError(
            f"{entry.name} does not load ({type(error).__name__}: {reason})"
        ) from error
    if not isinstance(paper, Paper):
        raise PaperError(
            f"{entry.name} does not load ({entry.value} is a {type(paper).__name__}, not a Paper)"
        )
    return paper
