"""The claims that take seconds, and what the longer ones are made of."""

import pytest
import torch
from attention_core import Run
from resformer import ResFormer
from resformer.claims import TOY, TablePositions, fit_sizes, resized
from resformer.paper import PAPER


@pytest.mark.parametrize("name", ["sizes", "teacher-is-left-alone"])
def test_fast_claims_hold(name: str, tmp_path) -> None:
    claim = PAPER.claim(name)
    assert claim.measure is not None
    assert claim.measure(Run(output=tmp_path)).holds


def test_learns_real_digits_at_two_sizes() -> None:
    """scikit-learn's 8 x 8 digits at 16 and 8 pixels: 120 steps of a small network."""
    from dataclasses import replace

    from image_classification_kit import accuracy, as_tensors, digits

    arrays = digits()
    train, test = (
        as_tensors(*part, size=16, mean=0.3, std=0.35) for part in (arrays.train, arrays.test)
    )
    model = ResFormer(replace(TOY, dim=48, depth=1))
    for module in model.modules():  # from wider weights a short run gets further
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.1)
    losses = fit_sizes(model, train, range(120), sizes=(16, 8), seed=0)
    assert sum(losses[-5:]) < sum(losses[:5]) / 1.3
    for size in (16, 8):
        assert accuracy(model, resized(test[0], size), test[1]) > 0.3


def test_the_baselines_table_is_resized() -> None:
    table = TablePositions(8, 7)
    assert table((7, 7)).shape == (1, 49, 8)
    assert torch.allclose(table((7, 7))[0, 8], table.table[0, :, 1, 1])
    assert table((3, 5)).shape == (1, 15, 8)
