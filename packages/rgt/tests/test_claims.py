from pathlib import Path

import pytest
from attention_core import Run
from rgt import RGT, RGTConfig
from rgt.claims import PARTS, SMALL
from rgt.model import Block, GlobalAttention
from rgt.paper import PAPER


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


def test_what_the_ablations_leave_out() -> None:
    whole, local, plain = (build(SMALL) for build in PARTS.values())
    assert isinstance(whole, RGT)
    assert any(isinstance(part, GlobalAttention) for part in whole.modules())
    assert not any(isinstance(part, GlobalAttention) for part in local.modules())
    blocks = [part for part in plain.modules() if isinstance(part, Block)]
    assert not any(block.gamma.requires_grad or block.gamma.any() for block in blocks)


def test_a_few_steps_on_photographs_beat_bicubic() -> None:
    from image_restoration_kit.short_runs import short_run

    config = RGTConfig(scale=2, dim=32, depths=(2,), heads=(2,), window=(4, 8))
    run = short_run(lambda: RGT(config), steps=60, seed=0, scale=2, patch=16, lr=5e-4, side=64)
    assert run.loss_ratio < 1
    assert run.gain > 0
