"""Recorded results as Markdown: a page per paper, and the table of all of them."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attention_core import Claim, Paper, write_text

from formers.comparisons import Comparison
from formers.figures import duration, entry, mebibytes, published
from formers.records import Record, bench_records, latest_claims
from formers.registry import Installed
from formers.reproduce import tables

MARKS = {"holds": "✓ holds", "fails": "✗ fails", "error": "! error", "not run": "· not run"}


def overview(papers: Iterable[Installed], results: Path, *, link: str = "papers/{}.md") -> str:
    """The table of papers with what is known of their claims."""
    rows = []
    for found in papers:
        if (paper := found.paper) is None:
            rows.append([f"{found.name}<br>{_cell(found.error)}", *[""] * 4])
            continue
        records = latest_claims(paper.slug, [results])
        states = [records[c.id]["status"] if c.id in records else "not run" for c in paper.claims]
        counts = [states.count(state) for state in ("holds", "fails")]
        rows.append(
            [
                f"[{paper.slug}]({link.format(paper.slug)})<br>{_cell(paper.title)}"
                f"<br>{_cell(paper.domain)} · {_cell(published(paper))}",
                str(len(paper.variants)),
                *map(str, [*counts, len(states) - sum(counts)]),
            ]
        )
    columns = ["paper", "variants", "held", "failed", "not run"]
    return _table(columns, rows)


def page(paper: Paper, results: Path, *, figures: str) -> str:
    """The page of one paper: README, with claims and costs before how to cite it, and API.

    Args:
        paper: the paper.
        results: the folder with ``PAPER/reproduce.json`` and ``PAPER/bench.json``.
        figures: how the page reaches ``results/PAPER``.
    """
    text, cite, end = readme(paper.slug).partition("\n## Cite")
    measured = [_claims(paper, results, figures), _costs(paper, results, figures)]
    parts = [text, *measured, cite + end, f"## API\n\n::: {paper.slug}"]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def compared(comparison: Comparison, results: Path, *, figures: str) -> str:
    """The page of a comparison: each question with what was measured; ``""`` before any was.

    Args:
        comparison: its papers and studies.
        results: the folder with ``SLUG/reproduce.json``.
        figures: how the page reaches ``results/SLUG``.
    """
    records = latest_claims(comparison.slug, [results])
    if not records:
        return ""
    names = ", ".join(paper.slug for paper in comparison.papers)
    text = [f"# Compared: {comparison.domain}"]
    text.append(f"`formers compare {comparison.domain}` puts these questions to {names}.")
    for study in comparison.claims:
        record = records.get(study.id)
        text.append(f"## {_text(study.statement)}")
        if record is None:
            text.append(f"Not measured; it takes {study.cost}.")
            continue
        text += [f"{_text(record['measured'])}.", *_body(study, record, figures)]
        budget = "full budget" if record["full"] else "quick budget"
        text.append(f"*{_text(record['hardware'])}, {record['date'][:10]}, {budget}.*")
    return "\n\n".join(text) + "\n"


def write(papers: Iterable[Installed], results: Path, docs: Path) -> list[Path]:
    """Write ``papers/index.md`` and ``papers/PAPER.md`` below ``docs``; figures stay in place."""
    papers = list(papers)
    folder = docs / "papers"
    table = overview(papers, results, link="{}.md")
    written = [write_text(folder / "index.md", f"# Papers\n\n{table}")]
    for found in papers:
        if found.paper is not None:
            figures = Path(os.path.relpath(results / found.paper.slug, folder)).as_posix()
            text = page(found.paper, results, figures=figures)
            written.append(write_text(folder / f"{found.paper.slug}.md", text))
    return written


def readme(slug: str) -> str:
    """The package's README: of its source tree, else of its installed distribution."""
    spec = importlib.util.find_spec(slug)
    if spec is not None and spec.origin is not None:
        source = Path(spec.origin).parents[2] / "README.md"
        if source.is_file() and (source.parent / "pyproject.toml").is_file():
            return source.read_text(encoding="utf-8")
    for name in importlib.metadata.packages_distributions().get(slug, ()):
        metadata: Any = importlib.metadata.metadata(name)
        text = metadata["Description"] or metadata.get_payload()
        if text and text.strip():
            return text
    return f"# {slug}\n"


def _claims(paper: Paper, results: Path, figures: str) -> str:
    if not paper.claims:
        return ""
    records = latest_claims(paper.slug, [results])
    rows = [_claim_row(claim, records.get(claim.id)) for claim in paper.claims]
    columns = ["claim", "", "paper says", "measured", "on"]
    text = ["## Claims", f"`formers reproduce {paper.slug}` measures them.", _table(columns, rows)]
    for claim in paper.claims:
        text += _claim_details(claim, records.get(claim.id), figures)
    return "\n\n".join(text)


def _claim_row(claim: Claim, record: Record | None) -> list[str]:
    statement = f"**{claim.id}**<br>{_cell(claim.statement)}"
    says = f"{_cell(claim.paper_says)}<br>({_cell(claim.source)})"
    if record is None:
        return [statement, MARKS["not run"], says, "", f"takes {_cell(claim.cost)}"]
    budget = "full budget" if record["full"] else "quick budget"
    where = f"{record['hardware']}, {record['date'][:10]}, {budget}, {record['seconds']:.0f} s"
    return [statement, MARKS[record["status"]], says, _cell(record["measured"]), _cell(where)]


def _claim_details(claim: Claim, record: Record | None, figures: str) -> list[str]:
    """Below the table: the command of a claim that was not run; figures, tables, conditions."""
    if record is None:
        if not claim.command:
            return []
        return [f"### {claim.id}", f"Not run here. It takes {claim.cost}:", _code(claim.command)]
    body = _body(claim, record, figures)
    return [f"### {claim.id}", *body] if body else []


def _body(claim: Claim, record: Record, figures: str) -> list[str]:
    """Figures, tables and conditions of what was measured."""
    body = [f"![{claim.id}]({figures}/{figure})" for figure in record.get("figures", ())]
    for table in tables(record):
        cells = [[_cell(entry(value)) for value in row] for row in table["rows"]]
        title = [f"**{_cell(table['title'])}**"] if table.get("title") else []
        body += [*title, _table([_cell(str(column)) for column in table["columns"]], cells)]
    if record.get("note"):
        body.append(_text(record["note"]))
    return body


def _costs(paper: Paper, results: Path, figures: str) -> str:
    records = bench_records(results, paper.slug).read()
    if not records:
        return ""
    text = ["## Cost", f"`formers bench {paper.slug}` measures it."]
    for record in records:
        text += _cost(record, figures)
    return "\n\n".join(text)


def _cost(record: Record, figures: str) -> list[str]:
    what = [record["variant"], "forward and backward" if record["backward"] else "forward"]
    what += ["compiled"] if record["compile"] else []
    what += [f"batch {record['batch']}", record["dtype"]]
    ours, *rest = record["sides"]
    columns = [record["axis"], "latency", "memory", "of matmul"]
    rows = [
        [
            str(point["size"]),
            duration(point["latency"]),
            mebibytes(point["memory"]),
            f"{point['matmul_share']:.0%}",
        ]
        for point in ours["points"]
    ]
    for side in rest:
        columns += ["baseline's latency", "its memory", "times as long"]
        for row, point, ratio in zip(rows, side["points"], record["speedup"], strict=True):
            row += [duration(point["latency"]), mebibytes(point["memory"])]
            row += [f"{ratio['median']:.2f}"]
    growth = [
        f"{_text(side['name'])}: "
        + ", ".join(f"{_quantity(q)} ~ size^{e:.2f}" for q, e in side["growth"].items())
        for side in record["sides"]
        if side["growth"]
    ]
    where = f"{record['hardware']}, {record['threads']} threads, {record['date'][:10]}"
    return [
        f"### {', '.join(what)}",
        f"Measured on {_text(where)}; a large matrix product runs there at "
        f"{record['matmul_rate'] / 1e9:.0f} GFLOP/s in {record['dtype']}."
        + "".join(f" Baseline: {_text(side['name'])}." for side in rest),
        f"![latency and memory over {_cell(record['axis'])}]({figures}/{record['figure']})",
        _table(columns, rows),
        *growth,
    ]


def _quantity(name: str) -> str:
    return {"flops": "FLOPs"}.get(name, name)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(command: str) -> str:
    return f"```\n{command}\n```"


def _text(text: str) -> str:
    """``text`` as it stands, where Markdown would read markup."""
    for mark in ("\\", "*", "[", "]", "`"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    """``text`` for a cell of a table."""
    return " ".join(_text(text).split()).replace("|", "\\|")
