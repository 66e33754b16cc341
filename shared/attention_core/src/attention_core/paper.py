"""What a paper package says of itself: identity, claims as code, and how to build its models.

``paper.py`` of a package makes one :class:`Paper`, named ``PAPER``, and registers it under the
entry-point group ``formers.papers``. The workbench reads nothing else.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attention_core.golden import GoldenCase
from attention_core.model import PaperModel

T = TypeVar("T")


def _no_progress(steps: Iterable[T], description: str) -> Iterable[T]:
    return steps


@dataclass(frozen=True, kw_only=True)
class Run:
    """The circumstances in which a claim is measured."""

    output: Path
    """Folder for figures and intermediate files; it exists."""
    full: bool = False
    """The budget of ``reproduce --full`` (up to 20 minutes a claim) instead of seconds."""
    device: str = "cpu"
    seed: int = 0
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = _no_progress
    """Wraps an iterable in a progress bar: ``for step in run.progress(range(n), "training")``."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What measuring a claim gave."""

    measured: str
    """One line for the table, figures with their units."""
    holds: bool
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Everything measured, as JSON takes it."""
    figures: tuple[Path, ...] = ()
    """Pictures written below ``Run.output``."""
    note: str = ""
    """Conditions that a reader must know: data, budget, seeds."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper, and how to see whether it holds."""

    id: str
    """Short and lower-case with dashes: what ``reproduce --claim`` takes."""
    statement: str
    """The claim in our words, one sentence."""
    source: str
    """Where the paper makes it: ``Table 2``, ``Sec. 4.3``."""
    paper_says: str
    """The paper's own figure or wording, shortened; ``-`` for a claim of this project."""
    cost: str
    """What measuring takes and on what: ``40 s on two CPU cores``, ``8 GPUs, 3 days``."""
    measure: Callable[[Run], Evidence] | None = None
    """``None`` for a claim that is stated but can't be measured with what is at hand."""
    command: str = ""
    """The command that would show it; needed when ``measure`` is ``None``."""
    fast: bool = True
    """Measured within seconds when ``Run.full`` is false, so that the test suite runs it."""

    def __post_init__(self) -> None:
        if self.measure is None and not self.command:
            raise ValueError(f"claim {self.id!r} has neither a measurement nor a command")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How ``formers bench`` runs a model: over which size, and against what."""

    axis: str
    """What grows: ``variates``, ``image side``, ``tokens``."""
    sizes: tuple[int, ...]
    variant: str
    """The variant to run when none is asked for."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What is set otherwise than in the variant, so that the network takes every size."""
    usual: int | None = None
    """The size that the papers print costs for, and so does ``formers show``; by default that of
    the paper's own ``inputs``."""
    baseline: Callable[[Any], nn.Module] | None = None
    """Configuration -> a plain model of the same function, to race against."""
    baseline_name: str = ""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper package's description of itself."""

    slug: str
    """The import name."""
    title: str
    authors: str
    year: int
    venue: str
    arxiv: str
    """The arXiv number, or ``""``."""
    domain: str
    """``forecasting``, ``vision``, ``super-resolution``, ``pathology``, ..."""
    summary: str
    """What the paper adds, in a sentence or two."""
    official: str
    """The authors' code: repository@commit, licence."""
    bibtex: str
    claims: tuple[Claim, ...]
    models: tuple[type[PaperModel], ...] = ()
    """The networks; their ``variants`` together are the paper's."""
    inputs: Callable[[Any, int | None, int], dict[str, Tensor]] | None = None
    """(configuration, size or None, batch) -> keyword arguments of ``forward``; the leading axis is
    the batch. Made by plain factory calls, so that ``with torch.device("meta")`` works."""
    tiny: tuple[Any, ...] = ()
    """Small configurations for the contract tests: at least one per network and per mode."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Variant -> parameter count, published or counted in the authors' code."""
    golden: Callable[[GoldenCase], Mapping[str, Any]] | None = None
    """Runs a golden case on this package and returns its outputs by name."""
    settings: Callable[[Any], dict[str, Any]] = lambda config: {}
    """Configuration -> the keyword arguments of ``from_official`` that tensors can't tell."""
    benchmark: Benchmark | None = None
    gradient_free: Mapping[str, str] = field(default_factory=dict)
    """Regular expression of parameter names -> why no gradient reaches them."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """What it does -> the shell command, for ``formers show``."""

    @property
    def variants(self) -> dict[str, Any]:
        """Every published variant of every network, by name."""
        return {name: config for model in self.models for name, config in model.variants.items()}

    def build(self, config: Any) -> PaperModel:
        """The network of ``config``.

        Raises:
            TypeError: when no network of this paper takes such a configuration.
        """
        for model in self.models:
            if isinstance(config, model.config_class):
                return model(config)
        raise TypeError(f"{self.slug} has no network for a {type(config).__name__}")

    def claim(self, name: str) -> Claim:
        """The claim with the id ``name``.

        Raises:
            ValueError: for an unknown id; the message lists the known ones.
        """
        return find_claim(self.slug, self.claims, name)


def find_claim(slug: str, claims: Iterable[Claim], name: str) -> Claim:
    """The one of ``claims`` with the id ``name``.

    Raises:
        ValueError: for an unknown id; the message lists the known ones.
    """
    for claim in claims:
        if claim.id == name:
            return claim
    known = ", ".join(claim.id for claim in claims)
    raise ValueError(f"{slug} has no claim {name!r}; it has {known}")


def growth_exponent(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """The slope of log cost over log size by least squares: 1 is linear, 2 quadratic."""
    x = torch.tensor([math.log(size) for size in sizes], dtype=torch.float64)
    y = torch.tensor([math.log(cost) for cost in costs], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return ((x * y).sum() / (x * x).sum()).item()
