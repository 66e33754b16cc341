from pathlib import Path

import pytest
import torch
from attention_core import Run
from hat.claims import PARTS, SMALL, without
from hat.paper import PAPER


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


def test_a_part_that_is_left_out_changes_nothing() -> None:
    """Its weights may be anything."""
    image = torch.rand(1, 3, 16, 16)
    for overlapping, channel in PARTS.values():
        torch.manual_seed(0)
        model = without(SMALL, overlapping, channel).eval()
        before = model(image)
        for key, parameter in model.named_parameters():
            if ".overlap." in key or ".conv.expand" in key:
                torch.nn.init.normal_(parameter)
        assert model(image).equal(before) == (not overlapping and not channel)
