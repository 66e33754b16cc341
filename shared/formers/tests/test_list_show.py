import json
import subprocess
import sys


def test_list_shows_papers_and_the_error_of_those_that_do_not_load(formers):
    code, out, _ = formers("list")
    assert code == 0
    row = next(line for line in out.splitlines() if "toy " in line)
    assert [cell.strip() for cell in row.split("│")][1:-1] == [
        "toy", "testing", "2026", "3", "0", "0", "4",
    ]  # fmt: skip
    assert "wrecked does not load (ImportError: the field's library is missing)" in out
    assert "mistaken does not load (toy.model:VARIANTS is a dict, not a Paper)" in out


def test_list_counts_the_fates_of_claims(formers, tmp_path):
    formers("reproduce", "toy", "--output", "elsewhere")
    rows = {row["paper"]: row for row in json.loads(formers("list", "--json")[1])}
    assert rows["toy"]["claims"] == {"held": 0, "failed": 0, "error": 0, "not run": 4}
    code, out, _ = formers("list", "--json", "--results", tmp_path / "elsewhere")
    rows = {row["paper"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["toy"]["claims"] == {"held": 1, "failed": 1, "error": 1, "not run": 1}
    assert rows["toy"]["variants"] == ["toy_s", "toy_loud", "toy_l"]
    assert "ImportError" in rows["wrecked"]["error"]


def test_list_survives_a_damaged_file_of_results(formers, tmp_path):
    (tmp_path / "runs" / "toy").mkdir(parents=True)
    (tmp_path / "runs" / "toy" / "reproduce.json").write_text('{"records": [')
    code, out, _ = formers("list")
    assert code == 0
    assert "is damaged or not a file of results" in out


def test_show(formers):
    code, out, _ = formers("show", "toy")
    assert code == 0
    assert "Toy: Two Linear Layers [are all]" in out
    assert "arXiv 2601.00001" in out
    row = next(line for line in out.splitlines() if "toy_l " in line)
    # 2 x 8 x 32 multiply-adds, twice, for each of the usual 16 tokens.
    cells = [cell.strip() for cell in row.split("│")][1:-1]
    assert cells == ["toy_l", "552", "16.4 k", "x 1×16×8"]
    assert "linear-cost" in out
    assert "toy predict file.csv" in out
    assert "@misc{toy" in out


def test_unknown_paper_is_one_line_with_the_known_ones(formers):
    for command in (["show"], ["verify"], ["reproduce"], ["bench"]):
        code, out, error = formers(*command, "toyota")
        assert code == 2
        assert out == ""
        assert error.startswith("error: no paper 'toyota' is installed; installed: ")
        assert "toy, wrecked" in error
        assert error.count("\n") == 1


def test_a_paper_that_does_not_load_is_one_line(formers):
    code, _, error = formers("show", "wrecked")
    assert code == 1
    assert error == ("error: wrecked does not load (ImportError: the field's library is missing)\n")


def test_starting_loads_neither_matplotlib_nor_lightning():
    check = (
        "import sys, formers.cli, formers.registry, formers.records, formers.reproduce;"
        "print([m for m in ('matplotlib', 'lightning', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
