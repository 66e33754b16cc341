"""The packages found in the workspace; every contract test runs over all of them."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_core import Paper

from . import nursery

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "slug" in metafunc.fixturenames:
        metafunc.parametrize("slug", PACKAGES, scope="session")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares one isolated process runs on one xdist worker."""
    for item in items:
        if "isolated" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(f"isolated-{item.callspec.params['slug']}"))


@pytest.fixture(scope="session")
def executables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of ``python`` and the console scripts that start without the slow imports."""
    home = tmp_path_factory.mktemp("nursery")
    address, folder = home / "socket", home / "bin"
    nursery.write_executables(folder, address)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, nursery.__file__, "serve", str(address)]
    with subprocess.Popen(command, env=environment) as server:
        while not address.exists():
            assert server.poll() is None, "the nursery ended"
            time.sleep(0.05)
        yield folder
        server.kill()


@pytest.fixture
def paper(slug: str) -> Paper:
    return importlib.import_module(f"{slug}.paper").PAPER


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def isolated(slug: str) -> dict[str, Any]:
    """What `isolated.py` found for the package, in a process without shape checking."""
    return isolated_results(slug)


_found: dict[str, dict[str, Any]] = {}


def isolated_results(slug: str) -> dict[str, Any]:
    if slug not in _found:
        command = [sys.executable, str(ROOT / "tests" / "isolated.py"), slug]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-4000:]
        _found[slug] = json.loads(done.stdout.splitlines()[-1])
    return _found[slug]
