"""Each package installs alone: from its folder, from a git address, from wheels."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import PACKAGES, ROOT

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("install")]

BROUGHT = {
    "attention-core",
    "torch",
    "einops",
    "jaxtyping",
    "safetensors",
    "huggingface-hub",
    "numpy",
}


def uv(*arguments: str, cwd: Path = ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "UV_PROJECT")}
    command = shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")
    done = subprocess.run(
        [command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"uv {' '.join(arguments)}\n{done.stderr[-3000:]}"
    return done.stdout


def installed(tmp_path: Path, *requirement: str, cwd: Path = ROOT) -> dict[str, str]:
    """Install into an empty environment; what is in it then, by name."""
    python = tmp_path / "alone" / "bin" / "python"
    uv("venv", "--quiet", str(tmp_path / "alone"))
    uv("pip", "install", "--quiet", "--python", str(python), *requirement, cwd=cwd)
    listed = json.loads(uv("pip", "list", "--python", str(python), "--format", "json"))
    return {entry["name"]: entry["version"] for entry in listed}


def runs(tmp_path: Path, code: str) -> str:
    python = tmp_path / "alone" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def others(found: dict[str, str], slug: str) -> set[str]:
    """What must not come along: lightning, the workbench, other papers."""
    strangers = {f"formers-{name.replace('_', '-')}" for name in PACKAGES if name != slug}
    return found.keys() & ({"lightning", "formers", "pytest", "timm", "pandas"} | strangers)


def test_from_its_folder(slug: str, tmp_path: Path) -> None:
    found = installed(tmp_path, str(ROOT / "packages" / slug))
    assert found.keys() >= BROUGHT
    assert others(found, slug) == set()
    shown = runs(
        tmp_path,
        f"import {slug}, {slug}.paper, attention_core\n"
        f"paper = {slug}.paper.PAPER\n"
        f"print(len(attention_core.golden_cases('{slug}')), len(paper.variants))",
    )
    goldens, _ = map(int, shown.split())
    assert goldens == len(list((ROOT / "packages" / slug / "tests" / "goldens").glob("*.json")))


def test_from_a_git_address(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    address = f"git+file://{clone}#subdirectory=packages/itransformer"
    found = installed(tmp_path, f"formers-itransformer @ {address}", cwd=tmp_path)
    assert found.keys() >= BROUGHT
    assert others(found, "itransformer") == set()
    runs(
        tmp_path,
        "import itransformer; itransformer.ITransformer.from_variant('itransformer_etth2_96')",
    )


def test_from_wheels_in_a_folder(tmp_path: Path) -> None:
    wheels = tmp_path / "dist"
    uv("build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(wheels))
    names = {wheel.name.split("-")[0] for wheel in wheels.glob("*.whl")}
    assert names >= {"attention_core", "formers", *(f"formers_{slug}" for slug in PACKAGES)}
    links = ["--find-links", str(wheels)]
    found = installed(tmp_path, *links, "formers-itransformer[data]", cwd=tmp_path)
    assert "lightning" not in found
    goldens = runs(
        tmp_path, "import attention_core as a; print(len(a.golden_cases('itransformer')))"
    )
    assert int(goldens) > 0, "a wheel carries its golden cases"
    command = tmp_path / "alone" / "bin" / "itransformer"
    done = subprocess.run([str(command), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "predict" in done.stdout
