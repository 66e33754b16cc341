from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def measured(formers, monkeypatch):
    monkeypatch.setattr("formers.bench._memory", lambda *arguments: [2**20] * len(arguments[-1]))
    monkeypatch.setattr("formers.bench.matmul_rate", lambda how: 1e9)
    formers("reproduce", "toy", "--output", "docs/results")
    formers("bench", "toy", "--output", "docs/results", "--sizes", "8,16", "--rounds", "3")


@pytest.fixture
def page(formers, measured):
    formers("report")
    return Path("docs/papers/toy.md").read_text()


def test_a_page_has_the_readme_the_claims_the_costs_and_the_api(page):
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert [t for t in titles if t.startswith(("# ", "## "))] == [
        "# toy", "## Equations", "## Claims", "## Cost", "## API",
    ]  # fmt: skip
    assert page.endswith("::: toy\n")
    assert "It is better than the naive method. | ✗ fails | 0.9 &lt; 1.1<br>(Table 1) |" in page
    assert "quick budget" in page
    assert "| ! error | always<br>(Sec. 5) | RuntimeError: no \\[luck\\] today |" in page
    assert "Not run here. It takes 8 GPUs, 3 days:\n\n```\npython -m toy.train fit" in page
    assert "**errors**\n\n| method | MSE |\n| --- | --- |\n| toy | 0.1235 |" in page
    assert "on made data" in page
    assert "toy_s: latency ~ size^" in page


def test_figures_are_reached_from_the_page(page):
    for target in ("linear-cost/linear.png", "bench-toy_s-cpu-float32.png"):
        assert f"](../results/toy/{target})" in page
        assert Path("docs/results/toy", target).is_file()


def test_the_table_of_papers(formers, measured):
    code, _, error = formers("report")
    assert code == 1  # of the broken ones
    assert "error: wrecked does not load" in error
    table = Path("docs/papers/index.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| [toy]"))
    assert row == (
        "| [toy](toy.md)<br>Toy: Two Linear Layers \\[are all\\]<br>testing · Nowhere 2026"
        " | 3 | 1 | 1 | 2 |"
    )


def test_a_paper_that_was_never_measured_has_a_page(formers, toy):
    formers("report")
    page = Path("docs/papers/toy.md").read_text()
    assert page.count("· not run") == 4
    assert "## Cost" not in page


@pytest.fixture
def config(formers, measured):
    from formers import site

    config = SimpleNamespace(
        nav=[{"Home": "index.md"}, {"Guides": []}], extra={}, docs_dir=str(Path("docs").resolve())
    )
    return site.on_config(config)


def test_the_site_lists_the_papers_that_load_and_warns_of_the_others(config, caplog):
    assert [next(iter(entry)) for entry in config.nav] == ["Home", "Papers", "Guides"]
    assert {"toy": "papers/toy.md"} in config.nav[1]["Papers"]
    assert not any("wrecked" in entry for entry in config.nav[1]["Papers"])
    warnings = [record.message for record in caplog.get_records("setup") + caplog.records]
    assert any(warning.startswith("wrecked does not load") for warning in warnings)


def test_the_site_puts_the_table_where_a_page_asks(config):
    from formers import site

    page = SimpleNamespace()
    text = site.on_page_markdown("a\n\n<!-- papers -->\n", page=page, config=config)
    assert "| [toy](papers/toy.md)<br>" in text
    assert site.on_page_markdown("none", page=page, config=config) == "none"


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script defer src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ("<link rel=stylesheet href=//fonts.example/css>", ["//fonts.example/css"]),
        ('<link href="https://f.example/a.css" rel="stylesheet">', ["https://f.example/a.css"]),
        ('<img alt="" src="http://pics.example/a.png">', ["http://pics.example/a.png"]),
        ('<a href="https://example.org">a link</a><script src="../x.js"></script>', []),
        ('<link rel="canonical" href="https://docs.example/page/">', []),
    ],
)
def test_what_a_browser_would_load_from_elsewhere(html, found):
    from formers import site

    assert site.loaded_from_elsewhere(html) == found


def test_a_page_that_loads_from_elsewhere_ends_the_build():
    from formers import site
    from mkdocs.exceptions import PluginError

    page = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    with pytest.raises(PluginError, match=r"a\.md loads from another host: //x\.example/a\.png"):
        site.on_post_page("<img src='//x.example/a.png'>", page=page)
