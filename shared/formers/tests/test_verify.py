import dataclasses
import json
import shutil

import pytest
import torch


@pytest.fixture
def checkpoint(toy, tmp_path):
    """Writes the authors' file of a variant."""
    from toy import VARIANTS, Toy

    def write(variant, **changes):
        model = Toy(dataclasses.replace(VARIANTS[variant], **changes))
        names = {"rise": "fc1", "fall": "fc2"}
        state = {names[k[:4]] + k[4:]: v for k, v in model.state_dict().items()}
        path = tmp_path / f"{variant}.pth"
        torch.save({"state_dict": state}, path)
        return path, state

    return write


def test_passes(formers):
    code, out, _ = formers("verify", "toy")
    assert code == 0
    assert "loud" in out
    assert "280" in out
    assert "✗" not in out


def test_a_wrong_output_fails(formers, toy, monkeypatch):
    from toy import Toy

    right = Toy.forward
    monkeypatch.setattr(Toy, "forward", lambda self, x: right(self, x) + 0.01)
    code, out, _ = formers("verify", "toy")
    assert code == 1
    row = next(line for line in out.splitlines() if "loud" in line)
    assert [cell.strip() for cell in row.split("│")][1:-1] == [
        "loud", "1", "y", "8.7e-03", "1e-04", "✗",
    ]  # fmt: skip


def test_an_output_that_is_not_finite_fails(formers, toy, monkeypatch):
    from toy import Toy

    right = Toy.forward
    monkeypatch.setattr(Toy, "forward", lambda self, x: right(self, x) * float("nan"))
    assert formers("verify", "toy")[0] == 1


def test_a_case_that_raises_fails_and_says_why(formers, toy, monkeypatch):
    from toy import Toy

    monkeypatch.setattr(Toy, "forward", lambda self, x: x[:, 0])
    code, out, _ = formers("verify", "toy")
    assert code == 1
    assert "ValueError: output has shape [2, 8], the case [2, 5, 8]" in out


def test_a_wrong_count_fails(formers, toy):
    toy.parameters["toy_s"] = 281
    toy.parameters["toy_xl"] = 1
    code, out, _ = formers("verify", "toy")
    assert code == 1
    assert "no such variant" in out


def test_a_file_is_recognised(formers, checkpoint):
    path, _ = checkpoint("toy_l")
    code, out, _ = formers("verify", "toy", "--checkpoint", path)
    assert code == 0
    assert "is Toy, toy_l: all 4 tensors accounted for, 552 parameters" in out


def test_variants_that_tensors_cannot_tell_apart_are_all_named(formers, checkpoint):
    path, _ = checkpoint("toy_loud")
    assert "is Toy, toy_s or toy_loud: all" in formers("verify", "toy", "--checkpoint", path)[1]


def test_an_unpublished_size_is_told_by_its_differences(formers, checkpoint):
    path, _ = checkpoint("toy_l", hidden=33)
    code, out, _ = formers("verify", "toy", "--checkpoint", path)
    assert code == 0
    assert "no published size: toy_s with hidden=33 (not 16)" in out


def test_every_wrong_entry_is_named(formers, checkpoint):
    path, state = checkpoint("toy_s")
    del state["fc2.bias"]
    state["extra.weight"] = torch.ones(1)
    state["fc1.bias"] = torch.ones(3)
    torch.save(state, path)
    code, out, _ = formers("verify", "toy", "--checkpoint", path)
    assert code == 1
    assert "missing: fall.bias" in out
    assert "unexpected: ext" in out
    assert "of another shape: rise.bias [3], the model has [16]" in out


def test_files_that_cannot_be_read(formers, tmp_path):
    code, _, error = formers("verify", "toy", "--checkpoint", "nowhere.pth")
    assert code == 2
    assert error == "error: no checkpoint file at nowhere.pth\n"
    (tmp_path / "noise.pth").write_bytes(b"noise")
    code, _, error = formers("verify", "toy", "--checkpoint", "noise.pth")
    assert code == 1
    assert error.startswith("error: noise.pth ")


def test_a_case_without_outputs_is_no_pass(formers, toy, monkeypatch):
    from pathlib import Path

    import toy.paper

    home = Path(toy.paper.__file__).parent
    copy = Path.cwd() / "goldens"
    shutil.copytree(home / "goldens", copy)
    record = json.loads((copy / "loud.json").read_text())
    record["outputs"] = {}
    (copy / "loud.json").write_text(json.dumps(record))
    from attention_core import GoldenCase

    monkeypatch.setattr(
        "formers.verify.golden_cases", lambda slug: [GoldenCase(copy / "loud.json")]
    )
    code, out, _ = formers("verify", "toy")
    assert code == 1
    assert "the case records no outputs" in out
