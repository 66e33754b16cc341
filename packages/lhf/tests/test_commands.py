"""The command line and the training command, in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lhf import claims
from lhf.cli import main
from lhf.paper import PAPER


@pytest.fixture
def lhf(monkeypatch, capsys, tmp_path: Path):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lhf", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return call


SMALL = ("--size", 5, "--horizon", 10, "--histories", 10, "--steps", 100)


def test_from_collection_to_evaluation(lhf, tmp_path: Path) -> None:
    made = lhf(
        "collect", "--source", "q_learning", *SMALL, "--noise", 0.3, "--tasks", "0,4,7,20",
        "--out", "h.h5", "--plot", "returns.png",
    )  # fmt: skip
    assert made[0] == 0, made
    code, out, _ = lhf("score", "h.h5", "--json", "--plot", "scores.png")
    assert code == 0
    assert set(json.loads(out)) == {"0", "4", "7", "20"}
    code, out, _ = lhf(
        "filter", "h.h5", "--out", "f.h5", "--sampling", "softmax", "--temperature", 0.25,
        "--report", "f.json", "--plot", "f.png",
    )  # fmt: skip
    assert code == 0
    assert out.startswith("40 histories, ")
    assert len(json.loads(Path("f.json").read_text())["tasks"]["4"]["selected"]) == 10
    code, out, error = lhf(
        "train", "--backbone", "dpt", "--data", "f.h5", "--out", "run", "--light", "--steps", 6,
        "--batch-size", 8, "--lr", 1e-3, "--transitions", 12, "--episodes", 1,
        "--accelerator", "cpu", "--filter", "weights",
    )  # fmt: skip
    assert code == 0, error
    code, out, _ = lhf(
        "evaluate", "run/model", "--horizon", 10, "--episodes", 2, "--json", "--out", "e.json",
        "--plot", "curve.png",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out) == json.loads(Path("e.json").read_text())
    assert len(json.loads(out)["curve"]) == 2
    pictures = ("returns", "scores", "f", "curve")
    assert all(Path(f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in pictures)


def test_bad_input_is_one_line(lhf) -> None:
    for arguments, message in (
        (("score", "none.h5"), "no histories at none.h5"),
        (("collect", "--env", "maze", "--out", "h.h5"), "env='maze': must be one of darkroom"),
        (("collect", *SMALL, "--tasks", "few", "--out", "h.h5"), "tasks='few': must be train"),
        (("evaluate", "nowhere"), "no model in nowhere"),
    ):
        code, _, error = lhf(*arguments)
        assert code == 2
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1


def test_package_needs_no_extra_to_import() -> None:
    script = "import lhf, sys; print(set(sys.modules) & {'gymnasium', 'h5py', 'ray', 'matplotlib'})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_fast_claims_hold(tmp_path: Path) -> None:
    from attention_core import Run

    for claim in PAPER.claims:
        if claim.measure and claim.fast:
            found = claim.measure(Run(output=tmp_path))
            assert found.holds, found.measured


def test_noisy_claim_runs_in_small(tmp_path: Path, monkeypatch) -> None:
    from attention_core import Run

    monkeypatch.setattr(claims, "STEPS", 3)
    monkeypatch.setattr(claims, "EPISODES", 2)
    found = claims.noisy_dpt(Run(output=tmp_path))
    assert set(found.numbers["mean"]) == {"unfiltered", "LHF", "random agent"}
    assert found.figures[0].exists()
