"""A package for another paper: small, complete and working, to be turned into the paper."""

import datetime
import importlib.util
import json
import keyword
import re
import subprocess
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from attention_core import atomic_directory

SUFFIX = ".template"


def scaffold(slug: str, *, title: str, domain: str, into: Path) -> Path:
    """Write the package ``slug`` into the folder ``into`` and return its own folder.

    Raises:
        ValueError: the slug is no import name, or is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", slug) or keyword.iskeyword(slug):
        raise ValueError(
            f"{slug!r} can't be a package: use lower-case letters, digits and underscores, "
            "starting with a letter"
        )
    home = into / slug
    if home.exists():
        raise ValueError(f"{home} exists")
    if importlib.util.find_spec(slug) is not None:
        raise ValueError(f"{slug!r} is the name of an installed module; choose another")
    if not title.strip() or not domain.strip():
        raise ValueError("title and domain must not be empty")
    if found := sorted(set('\\"{}$') & set(title + domain)):
        raise ValueError(f"title and domain can't have {' '.join(found)}")
    names = {
        "slug": slug,
        "dashed": slug.replace("_", "-"),
        "Class": "".join(part[:1].upper() + part[1:] for part in slug.split("_")),
        "title": " ".join(title.split()),
        "title_toml": json.dumps(" ".join(title.split()), ensure_ascii=False),
        "domain_toml": json.dumps(" ".join(domain.split()), ensure_ascii=False),
        "year": str(datetime.date.today().year),
    }
    with atomic_directory(home) as stage:
        _write(files("formers") / "template", stage, names)
    _tidy(home)
    return home


def _tidy(home: Path) -> None:
    """The order of imports and the breaks of lines depend on the name; ruff, if here, knows."""
    if importlib.util.find_spec("ruff") is not None:
        for command in (("check", "--fix", "--quiet"), ("format", "--quiet")):
            subprocess.run([sys.executable, "-m", "ruff", *command, str(home)], check=False)


def _write(source: Traversable, target: Path, names: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        place = target / entry.name.replace("SLUG", names["slug"]).removesuffix(SUFFIX)
        if entry.is_dir():
            _write(entry, place, names)
        elif entry.name.endswith(SUFFIX):
            text = entry.read_text(encoding="utf-8")
            place.write_text(Template(text).substitute(names), encoding="utf-8")
