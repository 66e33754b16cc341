"""Every package trains from its command line, survives kill -9, and reads its published runs."""

import contextlib
import io
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from .conftest import PACKAGES


@pytest.fixture
def command(executables: Path, slug: str) -> list[str]:
    return [str(executables / "python"), "-m", f"{slug}.train", "fit", "--config", "smoke"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def test_killed_and_resumed_training_equals_an_unbroken_one(
    command: list[str], tmp_path: Path
) -> None:
    options = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=300, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    whole = tmp_path / "runs" / "smoke"
    for written in ("csv/metrics.csv", "tensorboard", "checkpoints/last.ckpt", "model/config.json"):
        assert (whole / written).exists(), written

    broken = tmp_path / "runs" / "broken"
    process = subprocess.Popen(
        [*command, "--run", str(broken)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (broken / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "smoke ended before it could be killed"
    assert not (broken / "model").exists()

    resumed = [*command, "--run", str(broken), "--ckpt_path", "last"]
    done = subprocess.run(resumed, timeout=300, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    expected = load_file(whole / "model" / "model.safetensors")
    found = load_file(broken / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert [key for key in found if not found[key].equal(expected[key])] == []


def test_published_configurations_are_valid(slug: str, executables: Path) -> None:
    """Every packaged YAML is parsed against the module, data and trainer it configures."""
    script = (
        "import sys, importlib, contextlib, io\n"
        "from attention_core.training import packaged_configs\n"
        f"train = importlib.import_module('{slug}.train')\n"
        f"names = packaged_configs('{slug}')\n"
        "for name in names:\n"
        "    sys.argv = ['train', 'fit', '--config', name, '--print_config']\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()):\n"
        "            train.main()\n"
        "    except SystemExit as stop:\n"
        "        assert not stop.code, f'{name}: {stop.code}'\n"
        "print(len(names))\n"
    )
    done = subprocess.run(
        [str(executables / "python"), "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.splitlines()[-1]) >= 2, (
        "smoke.yaml alone: the published runs are missing"
    )


def test_unknown_configuration_is_named() -> None:
    from attention_core.training import resolve_configs

    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit, match="smoke"):
        resolve_configs(["fit", "--config", "no-such-run"], PACKAGES[0])
