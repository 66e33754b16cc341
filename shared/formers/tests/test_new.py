import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from formers.cli import app
from typer.testing import CliRunner

ROOT = Path(__file__).parents[3]

DISTRIBUTION = {
    "METADATA": "Metadata-Version: 2.1\nName: formers-new-paper\nVersion: 0.1.0\n",
    "entry_points.txt": "[formers.papers]\nnew_paper = new_paper.paper:PAPER\n",
}


def new(*arguments):
    result = CliRunner().invoke(app, ["new", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with nothing but the new package, as if installed."""
    root = tmp_path_factory.mktemp("workspace")
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, root)
    (root / "shared").symlink_to(ROOT / "shared")
    code, out, _ = new(
        "new_paper", "--title", "New Paper: a <Title>", "--domain", "testing", "--into",
        root / "packages",
    )  # fmt: skip
    assert code == 0
    assert "uv sync" in out
    source = root / "packages" / "new_paper" / "src"
    for name, text in DISTRIBUTION.items():
        file = source / "formers_new_paper-0.1.0.dist-info" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (root / "bin").mkdir()
    script = root / "bin" / "new-paper"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m new_paper.cli "$@"\n')
    script.chmod(0o755)
    return root


def run(workspace, *command):
    paths = {
        "PYTHONPATH": str(workspace / "packages" / "new_paper" / "src"),
        "PATH": os.pathsep.join([str(workspace / "bin"), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=workspace,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_nothing_of_the_template_is_left(workspace):
    files = [f for f in (workspace / "packages" / "new_paper").rglob("*") if f.is_file()]
    assert {"pyproject.toml", "README.md", "model.py", "smoke.yaml", "tiny.json", "py.typed"} <= {
        f.name for f in files
    }
    for file in files:
        assert "SLUG" not in file.name
        assert not file.name.endswith(".template")
        if file.name != "py.typed":
            assert "$" not in file.read_text()
    readme = (workspace / "packages" / "new_paper" / "README.md").read_text()
    assert readme.startswith("# New Paper: a <Title>\n")


def test_style_and_types_are_clean(workspace):
    run(workspace, "ruff", "check", "packages")
    run(workspace, "ruff", "format", "--check", "packages")


def test_its_own_tests_pass(workspace):
    tests = workspace / "packages" / "new_paper" / "tests"
    fast = [tests / f"test_{part}.py" for part in ("parity", "model", "claims", "cli")]
    assert "10 passed" in run(workspace, "pytest", "-c", "pyproject.toml", *map(str, fast))


@pytest.mark.slow
def test_the_contract_holds(workspace):
    """Everything that every package of the workspace must pass, training included."""
    shutil.copytree(ROOT / "tests", workspace / "tests")
    ran = run(workspace, "pytest", "-c", "pyproject.toml", "-k", "new_paper", "tests", "packages")
    assert "passed" in ran
    run(workspace, "mypy", "packages/new_paper/src")


@pytest.mark.parametrize(
    ("slug", "title", "message"),
    [
        ("New", "T", "error: 'New' can't be a package: use lower-case letters"),
        ("class", "T", "error: 'class' can't be a package"),
        ("torch", "T", "error: 'torch' is the name of an installed module; choose another"),
        ("there", "T", "error: packages/there exists"),
        ("new_paper", " ", "error: title and domain must not be empty"),
        ("new_paper", 'a "b"', "error: title and domain can't have \""),
    ],
)
def test_bad_usage_is_one_line(tmp_path, monkeypatch, slug, title, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packages" / "there").mkdir(parents=True)
    code, out, error = new(slug, "--title", title, "--domain", "testing")
    assert (code, out) == (2, "")
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert [p.name for p in (tmp_path / "packages").iterdir()] == ["there"]
