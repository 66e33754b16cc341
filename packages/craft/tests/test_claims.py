from pathlib import Path

import pytest
import torch
from attention_core import Run, count_parameters
from craft import CRAFT
from craft.claims import SMALL, PlainConvolutions, without_high
from craft.paper import PAPER


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and not c.fast])
def test_slow_claims_come_out(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.numbers
    assert all(figure.stat().st_size for figure in found.figures)


def test_the_networks_that_are_compared() -> None:
    sizes = [count_parameters(build) for build in (CRAFT(SMALL), PlainConvolutions())]
    assert 0.8 < sizes[1] / sizes[0] < 1.1
    assert not any(".high." in name for name, _ in without_high(SMALL).named_parameters())
    x = torch.rand(1, 3, 16, 16)
    assert PlainConvolutions()(x).shape == without_high(SMALL)(x).shape == (1, 3, 32, 32)


def test_a_few_steps_on_photographs_beat_bicubic() -> None:
    from image_restoration_kit.short_runs import short_run

    run = short_run(
        lambda: CRAFT(SMALL), steps=40, seed=0, scale=2, batch=4, patch=16, lr=5e-4, side=64,
    )  # fmt: skip
    assert run.gain > 0
