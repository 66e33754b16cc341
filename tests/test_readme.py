"""The commands of every README run as printed.

Blocks marked ``bash`` and ``python`` run, in order and in one folder; ``sh`` marks those that need
GPUs, published data or the network. ``tests/readme_files.py`` of a package makes what they name.
"""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

from .conftest import ROOT


def test_readme_commands_run_as_printed(slug: str, tmp_path: Path, executables: Path) -> None:
    home = ROOT / "packages" / slug
    maker = home / "tests" / "readme_files.py"
    if maker.exists():
        spec = importlib.util.spec_from_file_location(f"{slug}_readme_files", maker)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.make(tmp_path)
    blocks = re.findall(
        r"^```(bash|python)\n(.*?)^```", (home / "README.md").read_text(), re.M | re.S
    )
    assert {kind for kind, _ in blocks} == {"bash", "python"}, "a README shows command and Python"
    path = os.pathsep.join([str(executables), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    for kind, text in blocks:
        command = (
            [str(executables / "python"), "-c", text] if kind == "python" else ["bash", "-ec", text]
        )
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
