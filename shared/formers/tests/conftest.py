import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

PAPERS = Path(__file__).parent / "papers"
"""Holds an installed distribution with the paper `toy`, and one with two that do not load."""


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The paper `toy` is installed, and the working folder is empty."""
    monkeypatch.syspath_prepend(str(PAPERS))
    monkeypatch.setenv("PYTHONPATH", str(PAPERS))
    monkeypatch.chdir(tmp_path)
    from toy.paper import PAPER

    yield PAPER
    for name in [n for n in sys.modules if n.split(".")[0] == "toy"]:
        del sys.modules[name]


@pytest.fixture
def formers(toy):
    """Runs the command line: `formers("show", "toy")` -> (exit code, output, errors)."""
    from formers.cli import app

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run
