import json
from pathlib import Path

import pytest


def records(root="runs"):
    path = Path(root) / "toy" / "reproduce.json"
    return {r["claim"]: r for r in json.loads(path.read_text())["records"]}


def test_shows_and_records_every_fate(formers):
    code, out, progress = formers("reproduce", "toy")
    assert code == 1  # one claim raised
    assert progress.splitlines()[:2] == [
        "measuring linear-cost (1 s)",
        "✓ holds linear-cost (0.0 s)",
    ]
    for text in ("exponent 1.0, seed 0", "✓ holds", "✗ fails", "! error", "· not run"):
        assert text in out
    assert "RuntimeError: no [luck] today" in out
    assert "python -m toy.train fit --config toy_l --trainer.devices 8" in out
    assert "linear-cost: on made data" in out
    assert "results: runs/toy/reproduce.json" in out
    assert "figure: runs/toy/linear-cost/linear.png" in out
    assert "no [luck] today" in Path("runs/toy/shaky/error.txt").read_text()

    found = records()
    assert [found[c]["status"] for c in ("linear-cost", "better", "shaky")] == [
        "holds", "fails", "error",
    ]  # fmt: skip
    assert "imagenet" not in found
    linear = found["linear-cost"]
    assert linear["figures"] == ["linear-cost/linear.png"]
    assert linear["numbers"]["tensor"] == [1.0, 1.0]
    assert linear["numbers"]["lost"] == "nan"
    for circumstance in ("hardware", "date", "torch", "python", "version", "seconds", "threads"):
        assert circumstance in linear


def test_a_table_in_the_numbers_is_printed(formers):
    _, out, _ = formers("reproduce", "toy", "--claim", "linear-cost")
    assert "errors" in out
    row = next(line for line in out.splitlines() if line.startswith("│ toy"))
    assert [cell.strip() for cell in row.split("│")][1:-1] == ["toy", "0.1235"]


def test_a_failed_claim_is_a_result_and_not_an_error(formers):
    code, out, _ = formers("reproduce", "toy", "--claim", "better", "--claim", "imagenet")
    assert code == 0
    assert "✗ fails" in out
    assert "linear-cost" not in out


def test_resumes_and_measures_what_raised_again(formers):
    assert formers("reproduce", "toy")[0] == 1
    code, out, _ = formers("reproduce", "toy")
    assert code == 0
    assert "2 kept from an earlier run" in out
    found = records()
    assert found["linear-cost"]["numbers"]["times"] == 1
    assert found["shaky"]["status"] == "holds"
    assert not Path("runs/toy/shaky/error.txt").exists()
    formers("reproduce", "toy", "--fresh")
    assert records()["linear-cost"]["numbers"]["times"] == 2


@pytest.mark.parametrize("change", [["--full"], ["--seed", "1"]])
def test_other_circumstances_are_measured_and_kept_beside(formers, change):
    formers("reproduce", "toy", "--claim", "better")
    formers("reproduce", "toy", "--claim", "better", *change)
    stored = json.loads(Path("runs/toy/reproduce.json").read_text())["records"]
    assert [r["measured"][-1] for r in stored] == ["1", "2"]


def test_changed_code_is_measured_again(formers, monkeypatch):
    formers("reproduce", "toy", "--claim", "better")
    monkeypatch.setattr("formers.reproduce.source_digest", lambda slug: "other")
    formers("reproduce", "toy", "--claim", "better")
    assert records()["better"]["measured"].endswith("try 2")


def test_what_was_measured_before_an_interrupt_is_recorded(toy, formers, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    object.__setattr__(toy.claim("shaky"), "measure", interrupted)
    assert formers("reproduce", "toy")[0] == 130
    assert set(records()) == {"linear-cost", "better"}


def test_the_full_budget_is_what_is_shown(formers):
    from formers.records import latest_claims

    formers("reproduce", "toy", "--claim", "better", "--full")
    formers("reproduce", "toy", "--claim", "better")
    assert latest_claims("toy", [Path("runs")])["better"]["full"] is True


def test_bad_usage_is_one_line(formers):
    code, _, error = formers("reproduce", "toy", "--claim", "besser")
    assert code == 2
    assert error == (
        "error: toy has no claim 'besser'; it has linear-cost, better, shaky, imagenet\n"
    )
    code, _, error = formers("reproduce", "toy", "--device", "abacus")
    assert code == 2
    assert error.startswith("error: --device abacus: ")
    assert error.count("\n") == 1
    Path("file").write_text("")
    code, _, error = formers("reproduce", "toy", "--output", "file", "--claim", "better")
    assert code == 2
    assert error.startswith("error: ")


def test_a_damaged_results_file_is_not_overwritten(formers):
    path = Path("runs/toy/reproduce.json")
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    code, _, error = formers("reproduce", "toy", "--claim", "better")
    assert code == 2
    assert error == "error: runs/toy/reproduce.json is damaged or not a file of results\n"
    assert path.read_text() == "[]"
