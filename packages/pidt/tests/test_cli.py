"""The command line."""

import json
import sys
from pathlib import Path

import pytest
from pidt.cli import main
from pidt.scenarios import REFERENCE


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pidt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return call


def test_collect_train_evaluate_restore(run) -> None:
    assert run("collect", "case33bw", "--outages", 3, "--out", "data.npz")[0] == 0
    code, out, _ = run("train", "data.npz", "--steps", 3, "--dim", 16, "--out", "model")
    assert (code, out.split()[0]) == (0, "loss")
    code, out, _ = run("evaluate", "model", "case33bw", "--outages", 2, "--json")
    found = json.loads(out)
    assert found["model"]["refused"] == 0
    assert found["greedy"]["share"] <= 1
    code, out, _ = run("restore", "case33bw", "--policy", "model", "--json")
    assert code == 0
    assert all(step["feasible"] for step in json.loads(out)["steps"])


def test_restore_prints_and_draws(run) -> None:
    code, out, _ = run("restore", "case33bw", "--picture", "plan.png")
    assert code == 0
    assert "2.600 of 3.715 MW restored" in out
    assert "step 1: switch 6 (6-7) feeds buses 4-6" in out
    assert "dark: buses" in out
    assert Path("plan.png").stat().st_size > 10_000
    plan = json.loads(run("restore", "case33bw", "--policy", "greedy", "--json")[1])
    assert plan["restored_mw"] == pytest.approx(2.42)
    assert set(plan["steps"][0]["sources"]) == {"8", "25"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("restore", "case34"), "no feeder case34: neither a file nor one of case33bw, ieee13"),
        (("restore", "ieee13"), "ieee13: say with --scenario where its sources and switches are"),
        (("restore", "case33bw", "--scenario", "no.json"), "no scenario at no.json"),
        (("restore", "case33bw", "--policy", "wise"), "policy wise: neither greedy, optimal"),
        (
            ("restore", "case33bw", "--picture", "plan.doc"),
            "plan.doc: a picture must end in one of",
        ),
        (
            ("restore", "case33bw", "--scenario", "over.json"),
            "source bus 8, its own cell: 0.4602 MW",
        ),
        (("restore", "case33bw", "--scenario", "list.json"), "list.json: must be a JSON object"),
        (("restore", "case33bw", "--scenario", "odd.json"), "odd.json: unknown source"),
        (("restore", "case33bw", "--scenario", "cut.json"), "cut.json is not JSON"),
        (("train", "no.npz", "--out", "m"), "no trajectories at no.npz"),
        (("evaluate", ".", "case33bw", "--outages", 1), "no model at .: it has no config.json"),
        (("collect", "case33bw", "--out", "d.npz", "--mixture", "[]"), "must be a JSON object"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message) -> None:
    Path("over.json").write_text(json.dumps({**REFERENCE, "sources": {"8": {"p_max_mw": 0.1}}}))
    Path("list.json").write_text("[]")
    Path("odd.json").write_text('{"source": 1}')
    Path("cut.json").write_text('{"sources"')
    code, _, error = run(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
