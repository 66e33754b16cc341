from pathlib import Path

import pytest
from attention_core import Run
from histoformer import claims
from histoformer.paper import PAPER


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured
    assert all(figure.stat().st_size for figure in found.figures)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and not c.fast])
def test_slow_claims_come_out(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.numbers
    assert all(figure.stat().st_size for figure in found.figures)


def test_a_short_training_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow claims' own path, in two steps."""
    monkeypatch.setattr(claims, "STEPS", 2)
    monkeypatch.setattr(claims, "SEEDS", 1)
    monkeypatch.setattr(claims, "SIDE", 32)
    monkeypatch.setattr(claims, "SMALL", PAPER.tiny[0])
    monkeypatch.setattr(claims, "_done", {})
    found = claims.ablation_loss(Run(output=tmp_path))
    assert set(found.numbers) == {"as published", "without correlation"}
    learnt = claims.learns(Run(output=tmp_path))
    assert learnt.numbers["gains"] == found.numbers["as published"]
    assert all(figure.stat().st_size for figure in learnt.figures)
