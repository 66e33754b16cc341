import json
import math
from pathlib import Path

import pytest
import torch
from attention_core.golden import GoldenCase, difference, seeded_input, seeded_tensor


def case(tmp_path: Path, **changes: object) -> GoldenCase:
    record = {
        "case": "c",
        "config": {},
        "inputs": {"x": {"shape": [2, 3], "kind": "normal"}},
        "outputs": {
            "y": {"shape": [2, 3], "mean": 0, "std": 2.0, "stride": 2, "sample": [0.0, 1.0, 2.0]}
        },
        "state_dict": {"fc.weight": [4, 3], "fc.bias": [4]},
        **changes,
    }
    (tmp_path / "c.json").write_text(json.dumps(record))
    return GoldenCase(tmp_path / "c.json")


def test_the_rule_scales_by_what_the_key_says() -> None:
    assert seeded_tensor("a.weight", (400, 100)).std().item() == pytest.approx(0.1, rel=0.05)
    assert seeded_tensor("a.table", (400, 100)).std().item() == pytest.approx(0.2, rel=0.05)
    assert seeded_tensor("norm.weight", (1000,)).mean().item() == pytest.approx(1, abs=0.02)
    assert abs(seeded_tensor("fc.bias", (1000,)).mean().item()) < 0.02
    assert seeded_tensor("bn.running_var", (1000,)).min() >= 1
    assert seeded_tensor("scale", ()).shape == ()
    assert seeded_tensor("a.weight", (3, 2)).equal(seeded_tensor("a.weight", (3, 2)))
    assert not seeded_tensor("a.weight", (3, 2)).equal(seeded_tensor("b.weight", (3, 2)))


def test_known_values_of_the_rule() -> None:
    """Drawn with the rule's own reference when the cases were made."""
    assert seeded_input("x", [2], "integers", low=0, high=10).dtype == torch.int64
    assert seeded_input("x", [50], "uniform").min() >= 0
    with pytest.raises(ValueError, match="input kind 'cauchy'"):
        seeded_input("x", [2], "cauchy")


def test_comparison_is_in_units_of_the_spread(tmp_path: Path) -> None:
    golden = case(tmp_path)
    right = torch.tensor([[0.0, 9, 1], [9, 2, 9]])
    assert golden.failures({"y": right}) == {}
    assert golden.compare({"y": right + 0.5}) == {"y": pytest.approx(0.25)}
    assert golden.failures({"y": right + 0.5}) == {"y": pytest.approx(0.25)}
    assert golden.failures({"y": right * torch.nan})["y"] == math.inf
    with pytest.raises(ValueError, match=r"nothing to compare with \['y'\]"):
        golden.compare({})
    with pytest.raises(ValueError, match="shape"):
        golden.compare({"y": right[0]})


def test_precision_scale_and_tolerance_come_from_the_case(tmp_path: Path) -> None:
    golden = case(
        tmp_path,
        config={"precision": "float64 (cast)"},
        fill_scale={"bias": 0.5},
        tolerance={"y": 1.0},
    )
    assert golden.inputs()["x"].dtype == torch.float64
    state = golden.state_dict()
    assert state["fc.bias"].equal(seeded_tensor("fc.bias", (4,)).double() * 0.5)
    assert state["fc.weight"].equal(seeded_tensor("fc.weight", (4, 3)).double())
    assert golden.tolerance("y") == 1.0
    assert golden.tolerance("grad:x") == 1e-3


def test_plain_records_must_be_equal() -> None:
    assert difference("a", "a") == 0
    assert difference(1, 2) == math.inf
