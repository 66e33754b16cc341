"""Measuring claims: one after the other, each recorded as soon as it is known."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from attention_core import Claim, Evidence, Paper, Run, write_text

from formers.comparisons import Comparison
from formers.records import (
    Record,
    as_json,
    claim_records,
    environment,
    package_version,
    source_digest,
)

Progress = Callable[[Iterable[Any], str], Iterable[Any]]

HOLDS, FAILS, ERROR, NOT_RUN = "holds", "fails", "error", "not run"

ERROR_FILE = "error.txt"
"""Where a claim that raised leaves its traceback, in the claim's folder."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A claim and what is known of it."""

    claim: Claim
    record: Record | None
    """``None`` for a claim that is stated but not measured here."""
    kept: bool = False
    """Measured by an earlier run under the same circumstances."""

    @property
    def status(self) -> str:
        return self.record["status"] if self.record else NOT_RUN


def reproduce(
    paper: Paper | Comparison,
    claims: Iterable[Claim],
    *,
    root: Path,
    progress: Progress,
    announce: Callable[[Claim], None] = lambda claim: None,
    full: bool = False,
    device: str = "cpu",
    seed: int = 0,
    fresh: bool = False,
) -> Iterator[Outcome]:
    """Measure ``claims`` in turn; each outcome is in the JSON file before it is yielded.

    A claim that was recorded under the same circumstances by the same code is not measured again
    unless ``fresh``; one that raised is. ``announce`` is told of each before it is measured.
    Figures go to ``root/slug/claim``.
    """
    records = claim_records(root, paper.slug)
    module = paper.slug if isinstance(paper, Paper) else "formers"
    digest = source_digest(module)
    for claim in claims:
        if claim.measure is None:
            yield Outcome(claim=claim, record=None)
            continue
        circumstances = {"claim": claim.id, "full": full, "seed": seed, "device": device}
        known = records.find(**circumstances)
        if known and not fresh and known["status"] != ERROR and known["source"] == digest:
            yield Outcome(claim=claim, record=known, kept=True)
            continue
        output = root / paper.slug / claim.id
        output.mkdir(parents=True, exist_ok=True)
        (output / ERROR_FILE).unlink(missing_ok=True)
        announce(claim)
        run = Run(output=output, full=full, device=device, seed=seed, progress=progress)
        record = {
            **circumstances,
            "statement": claim.statement,
            "paper_says": claim.paper_says,
            "paper_source": claim.source,
            **_measure(claim.measure, run, root / paper.slug),
            "version": package_version(module),
            "source": digest,
            **environment(),
        }
        records.add(record)
        if not any(output.iterdir()):
            output.rmdir()
        yield Outcome(claim=claim, record=as_json(record))


def _measure(measure: Callable[[Run], Evidence], run: Run, folder: Path) -> Record:
    begin = time.perf_counter()
    try:
        torch.manual_seed(run.seed)
        evidence = measure(run)
    except Exception as error:  # one broken measurement must not take the others with it
        write_text(run.output / ERROR_FILE, traceback.format_exc())
        return {
            "status": ERROR,
            "measured": f"{type(error).__name__}: {' '.join(str(error).split())}",
            "seconds": round(time.perf_counter() - begin, 2),
        }
    return {
        "status": HOLDS if evidence.holds else FAILS,
        "measured": evidence.measured,
        "numbers": evidence.numbers,
        "figures": [_relative(figure, folder) for figure in evidence.figures],
        "note": evidence.note,
        "seconds": round(time.perf_counter() - begin, 2),
    }


def _relative(figure: Path, folder: Path) -> str:
    figure, folder = Path(figure).resolve(), folder.resolve()
    return figure.relative_to(folder).as_posix() if figure.is_relative_to(folder) else str(figure)


def tables(record: Record) -> list[dict[str, Any]]:
    """The tables of an evidence: ``numbers["table"]``, one or a list of them.

    Each has ``columns`` and ``rows``, and may have a ``title``.
    """
    found = (record.get("numbers") or {}).get("table", [])
    found = [found] if isinstance(found, dict) else found
    return [table for table in found if isinstance(table, dict) and {"columns", "rows"} <= {*table}]
