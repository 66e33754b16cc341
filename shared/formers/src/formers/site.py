"""The hook of ``mkdocs.yml``: pages of papers are made while the site is built, none is kept.

It puts a page per installed paper into the site and its navigation, writes the table of papers
where a page says ``<!-- papers -->``, and refuses pages that load anything from another host.
"""

import contextlib
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from formers import report
from formers.comparisons import DOMAINS, comparison
from formers.registry import Installed, installed

log = logging.getLogger("mkdocs.formers")

TABLE = "<!-- papers -->"

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\ssrc\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|icon|preconnect))[^>]*?"""
    r"""\shref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
)


def on_config(config: Any) -> Any:
    """Read the papers, and list them in the navigation after the home page."""
    config.extra["papers"] = papers = list(installed())
    for found in papers:
        if found.paper is None:
            log.warning(found.error)  # which ends a strict build
    pages = [{found.name: f"papers/{found.name}.md"} for found in papers if found.paper]
    config.extra["comparisons"] = _comparisons(config)
    compared = [{domain: f"papers/{domain}-compared.md"} for domain in config.extra["comparisons"]]
    if config.nav is not None and pages:
        config.nav.insert(1, {"Papers": pages})
        if compared:
            config.nav.insert(2, {"Compared": compared})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the papers."""
    for found in _papers(config):
        if found.paper is None:
            continue
        uri = f"papers/{found.name}.md"
        if (written := files.get_file_from_path(uri)) is not None:  # by `formers report`
            files.remove(written)
        text = report.page(found.paper, _results(config), figures=f"../results/{found.name}")
        files.append(File.generated(config, uri, content=text))
    for domain, text in config.extra["comparisons"].items():
        files.append(File.generated(config, f"papers/{domain}-compared.md", content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Put the table of papers where a page asks for it."""
    if TABLE not in markdown:
        return markdown
    return markdown.replace(TABLE, report.overview(_papers(config), _results(config)))


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse what a browser would fetch from another host."""
    if found := loaded_from_elsewhere(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {', '.join(found)}")
    return output


def loaded_from_elsewhere(html: str) -> list[str]:
    """Addresses of other hosts that a browser fetches to show ``html``; links are not such."""
    return sorted({script or style for script, style in _LOADED.findall(html)})


def _comparisons(config: Any) -> dict[str, str]:
    """Domain -> page, of the comparisons that were measured."""
    pages = {}
    for domain in DOMAINS:
        with contextlib.suppress(ValueError):  # fewer than two papers are installed
            found = comparison(domain)
            figures = f"../results/{found.slug}"
            if text := report.compared(found, _results(config), figures=figures):
                pages[domain] = text
    return pages


def _papers(config: Any) -> list[Installed]:
    return config.extra["papers"]


def _results(config: Any) -> Path:
    return Path(config.docs_dir) / "results"
