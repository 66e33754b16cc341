import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from attention_core import Evidence, Paper, Run, write_text
from formers import comparisons, report
from formers.cli import app
from formers.comparisons import Comparison, Study, comparison
from formers.records import claim_records
from formers.registry import Installed
from typer.testing import CliRunner


def count(papers: list[Paper], run: Run) -> Evidence:
    figure = write_text(run.output / "figure.png", "")
    table = {"columns": ["network"], "rows": [[paper.slug] for paper in papers]}
    return Evidence(
        measured=f"{len(papers)} papers", holds=True, numbers={"table": table}, figures=(figure,)
    )


STUDIES = (Study(id="count", question="How many?", cost="nothing", measure=count),)


@pytest.fixture
def two(toy: Paper, monkeypatch: pytest.MonkeyPatch) -> Paper:
    """Two papers of one domain are installed."""
    found = [Installed("one", toy), Installed("two", toy)]
    monkeypatch.setattr(comparisons, "installed", lambda: found)
    monkeypatch.setitem(sys.modules, "studies", SimpleNamespace(STUDIES=STUDIES))
    for domain in (toy.domain, "pottery"):
        monkeypatch.setitem(comparisons.DOMAINS, domain, "studies")
    return toy


def test_studies_are_measured_recorded_and_shown(two: Paper, tmp_path: Path) -> None:
    asked = ["compare", two.domain, "--output", str(tmp_path)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "2 papers" in done.output
    found = comparison(two.domain)
    assert len(claim_records(tmp_path, found.slug).read()) == 1
    page = report.compared(found, tmp_path, figures="../results/x")
    assert page.startswith(f"# Compared: {two.domain}")
    assert "## How many?" in page
    assert "![count](../results/x/count/figure.png)" in page
    assert f"| {two.slug} |" in page
    assert report.compared(found, tmp_path / "elsewhere", figures="") == ""


def test_what_can_not_be_compared_is_said(two: Paper) -> None:
    with pytest.raises(ValueError, match="no comparison of 'cooking'; there is one of super-res"):
        comparison("cooking")
    with pytest.raises(ValueError, match="0 papers of pottery are installed: nothing to compare"):
        comparison("pottery")
    asked = CliRunner().invoke(app, ["compare", two.domain, "--study", "height"])
    assert asked.exit_code == 2
    assert f"compare-{two.domain} has no claim 'height'; it has count" in asked.output


def test_a_comparison_reads_as_a_paper() -> None:
    found = Comparison(domain="super-resolution", papers=[], studies=STUDIES)
    assert found.slug == "compare-super-resolution"
    assert found.claim("count").statement == "How many?"
