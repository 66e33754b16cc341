from pathlib import Path

import pytest
from attention_core import Run
from dlgsanet import DLGSANet, DLGSANetConfig
from dlgsanet.claims import PARTS
from dlgsanet.paper import PAPER, Unfolded


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


def test_what_the_ablations_change() -> None:
    sparse, softmax, static = (build().config for build in PARTS.values())
    assert (sparse.activation, sparse.dynamic) == ("relu", True)
    assert softmax.activation == "softmax"
    assert not static.dynamic


def test_the_races_other_side_computes_the_same() -> None:
    import torch

    image, other = torch.rand(1, 3, 12, 12), Unfolded(PAPER.tiny[0])
    model = DLGSANet(PAPER.tiny[0])
    model.load_state_dict(other.network.state_dict())
    torch.testing.assert_close(model(image), other(image))


def test_a_few_steps_on_photographs_beat_bicubic() -> None:
    from image_restoration_kit.short_runs import short_run

    config = DLGSANetConfig(scale=2, dim=24, groups=1, blocks=1)
    run = short_run(lambda: DLGSANet(config), steps=60, seed=0, scale=2, patch=16, lr=1e-3, side=64)
    assert run.loss_ratio < 1
    assert run.gain > 0
