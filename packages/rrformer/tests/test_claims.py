from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attention_core import Run
from image_restoration_kit.data import DrawnImages
from rrformer import RRFormer
from rrformer.claims import SMALL, START
from rrformer.data import blend
from rrformer.losses import pixel_loss
from rrformer.paper import PAPER


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(claim: str, tmp_path: Path) -> None:
    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured


def test_a_pair_is_learnt() -> None:
    torch.manual_seed(0)
    truth = DrawnImages().read("drawn0")[None, :, :32, :32]
    blended = blend(truth[0], DrawnImages().read("drawn1")[:, :32, :32], 2.0)[None]
    model = RRFormer(replace(SMALL, depths=(1,)))
    torch.nn.init.constant_(model.decoder.last.bias, START)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = pixel_loss(model(blended), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and not c.fast])
def test_slow_claims_are_measured(claim: str, tmp_path: Path) -> None:
    assert PAPER.claim(claim).measure(Run(output=tmp_path)).measured
