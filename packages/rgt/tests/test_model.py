"""Configurations, shapes, the recursion, training behaviour and messages."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rgt import RGT, VARIANTS, RGTConfig
from rgt.model import LocalAttention, recursions
from rgt.paper import PAPER

TINY = PAPER.tiny[0]


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 4), st.integers(1, 23), st.integers(1, 23))
def test_images_of_any_size(scale: int, channels: int, height: int, width: int) -> None:
    model = RGT(replace(TINY, scale=scale, channels=channels, depths=(2,), heads=(2,)))
    image = torch.rand(2, channels, height, width)
    for mode in (True, False):
        out = model.train(mode)(image)
        assert out.shape == (2, channels, scale * height, scale * width)
        assert out.isfinite().all()


@given(st.integers(16, 5000), st.integers(16, 5000))
def test_the_recursion_is_the_authors_where_theirs_works(height: int, width: int) -> None:
    def times(first: int) -> int:
        return max(int(math.log(side // first, 4) + 1e-9) for side in (height, width))

    for training, expected in ((True, times(4)), (False, max(2, times(16)))):
        capped = min(expected, int(math.log(min(height, width), 4) + 1e-9))
        assert recursions(height, width, training=training) == capped


@pytest.mark.parametrize(
    ("side", "training", "evaluation"),
    [(4, 0, 1), (15, 0, 1), (16, 1, 2), (32, 1, 2), (64, 2, 2), (1023, 3, 2), (1024, 4, 3)],
)
def test_recursions_of_squares(side: int, training: int, evaluation: int) -> None:
    assert recursions(side, side, training=True) == training
    assert recursions(side, side, training=False) == evaluation


def test_the_recursion_stops_before_the_shorter_side_vanishes() -> None:
    assert recursions(60, 1024, training=False) == 2
    assert recursions(1, 1024, training=False) == 0


def test_training_shrinks_small_images_less_often() -> None:
    torch.manual_seed(0)
    model, image = RGT(replace(TINY, drop_path=0.0)), torch.rand(1, 3, 32, 32)
    assert not torch.allclose(model.train()(image), model.eval()(image))
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model.train()(image), model.eval()(image))


def test_which_blocks_shift() -> None:
    model = RGT(replace(TINY, depths=(7, 7)))
    shifted = [
        [n for n, b in enumerate(g.blocks) if isinstance(b.attention, LocalAttention)
         and b.attention.shifted] for g in model.groups
    ]  # fmt: skip
    assert shifted == [[2, 6], [0, 4]]


def test_drop_path_grows_from_block_to_block() -> None:
    model = RGT(replace(TINY, drop_path=0.4))
    rates = [block.drop_path.rate for group in model.groups for block in group.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_initialisation() -> None:
    torch.manual_seed(0)
    block = RGT(replace(TINY, dim=96)).groups[0].blocks[1]
    for weight in (block.mlp.fc1.weight, block.attention.query.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.mlp.fc1.bias.eq(0).all()
    assert block.gamma.eq(1e-4).all()


def test_variants() -> None:
    assert len(VARIANTS) == 6
    assert VARIANTS["rgt_x4"].depths == (6,) * 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 5}, "scale=5: must be 3 or a power of two"),
        ({"dim": 16}, "dim=16: must be at least 32"),
        ({"heads": (3, 2)}, "3 is odd"),
        ({"heads": (2,)}, "needs one entry for each of the 2 groups"),
        ({"dim": 60, "heads": (4, 4)}, "4 heads do not divide dim=60 and key width 30"),
        ({"heads": (10, 10)}, "10 heads do not divide dim=96 and key width 48"),
        ({"window": (3, 4)}, "both sides must be even"),
        ({"mlp_ratio": 0}, "hidden width must be even"),
        ({"image_range": 0}, "image_range=0: must be positive"),
        ({"residual": "2conv"}, "residual='2conv': must be one of '1conv', '3conv'"),
        ({"drop_path": 1}, "drop_path=1: must be in"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_images_that_do_not_fit() -> None:
    model = RGT(TINY)
    with pytest.raises(ValueError, match="0 x 8"):
        model(torch.rand(1, 3, 0, 8))
    with pytest.raises(ValueError, match="4 channels, the model takes 3"):
        model(torch.rand(1, 4, 8, 8))
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_an_rgt_is_made_of_its_configuration() -> None:
    assert RGT.from_variant("rgt_s_x2", depths=(1,), heads=(2,)).config == RGTConfig(
        scale=2, depths=(1,), heads=(2,)
    )
