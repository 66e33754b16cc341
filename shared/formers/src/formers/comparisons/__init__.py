"""Papers of one domain measured side by side, on the same data and machine."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from attention_core import Claim, Evidence, Paper, Run, find_claim

from formers.registry import installed

DOMAINS = {
    "super-resolution": "formers.comparisons.super_resolution",
    "vision": "formers.comparisons.vision",
}
"""Domain -> the module whose ``STUDIES`` compare its papers."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question that is put to every paper of a domain."""

    id: str
    """Short and lower-case with dashes: what ``compare --study`` takes."""
    question: str
    cost: str
    """What answering takes and on what."""
    measure: Callable[[list[Paper], Run], Evidence]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The papers of one domain, and what is asked of them.

    It has ``slug`` and ``claims`` as a paper has, so that it is measured and recorded as one.
    """

    domain: str
    papers: list[Paper]
    studies: tuple[Study, ...]

    @property
    def slug(self) -> str:
        """Names its folder among the results."""
        return f"compare-{self.domain}"

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(
            Claim(
                id=study.id,
                statement=study.question,
                source="this project",
                paper_says="-",
                cost=study.cost,
                measure=partial(study.measure, self.papers),
            )
            for study in self.studies
        )

    def claim(self, name: str) -> Claim:
        """The study with the id ``name``; ``ValueError`` for an unknown one."""
        return find_claim(self.slug, self.claims, name)


def comparison(domain: str) -> Comparison:
    """What is compared between the installed papers of ``domain``.

    Raises:
        ValueError: for a domain without a comparison, or fewer than two installed papers.
    """
    if domain not in DOMAINS:
        raise ValueError(f"no comparison of {domain!r}; there is one of {', '.join(DOMAINS)}")
    papers = [found.paper for found in installed() if found.paper and found.paper.domain == domain]
    if len(papers) < 2:
        raise ValueError(f"{len(papers)} papers of {domain} are installed: nothing to compare")
    studies = importlib.import_module(DOMAINS[domain]).STUDIES
    return Comparison(domain=domain, papers=papers, studies=studies)


def alone(paper: Paper) -> Paper:
    """``paper`` without the baseline of its benchmark."""
    if paper.benchmark is None:
        return paper
    return replace(paper, benchmark=replace(paper.benchmark, baseline=None))
