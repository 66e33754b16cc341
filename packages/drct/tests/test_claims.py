from pathlib import Path

import pytest
from attention_core import Run
from drct.paper import PAPER

FAILS = {"printed-cost"}
"""The authors' README prints a twelfth of what the network computes."""


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_come_out_as_reported(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds == (claim not in FAILS), found.measured
    assert all(figure.stat().st_size for figure in found.figures)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and not c.fast])
def test_slow_claims_hold(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured
    assert all(figure.stat().st_size for figure in found.figures)


def test_a_few_steps_on_photographs_beat_bicubic() -> None:
    from drct import DRCT, DRCTConfig
    from image_restoration_kit.short_runs import short_run

    config = DRCTConfig(scale=2, dim=24, heads=(4,), window=8, growth=8, features=32)
    run = short_run(
        lambda: DRCT(config), steps=80, seed=0, scale=2, batch=8, patch=16, lr=5e-4, side=64
    )
    assert run.loss_ratio < 1
    assert run.gain > 0
