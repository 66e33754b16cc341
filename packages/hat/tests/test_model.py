"""Configurations, shapes, training behaviour and messages."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_core import count_parameters
from hat import HAT, VARIANTS
from hat.paper import PAPER
from hypothesis import given, settings
from hypothesis import strategies as st

TINY = PAPER.tiny[0]


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([2, 3, 5]),
)
def test_any_whole_number_of_windows(
    scale: int, channels: int, rows: int, columns: int, window: int
) -> None:
    config = replace(TINY, scale=scale, channels=channels, window=window)
    image = torch.rand(2, channels, rows * window, columns * window)
    assert HAT(config)(image).shape == (2, channels, *(scale * s for s in image.shape[2:]))


@pytest.mark.parametrize(("variant", "count"), PAPER.parameters.items())
def test_published_sizes(variant: str, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(HAT(VARIANTS[variant])) == count


def test_drop_path_grows_evenly_through_the_depth() -> None:
    config = replace(TINY, depths=(2, 1), drop_path=0.2)
    assert config.drop_paths == (pytest.approx((0.0, 0.1)), pytest.approx((0.2,)))
    model = HAT(config)
    assert [b.drop_path.rate for g in model.groups for b in g.blocks] == pytest.approx(
        [0, 0.1, 0.2]
    )
    assert replace(TINY, depths=(1,), heads=(2,)).drop_paths == ((0.0,),)


def test_blocks_shift_in_turn() -> None:
    assert [block.shift for block in HAT(replace(TINY, depths=(3, 1))).groups[0].blocks] == [
        0,
        2,
        0,
    ]
    still = HAT(replace(TINY, shifted=False))
    assert {block.shift for group in still.groups for block in group.blocks} == {0}


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = HAT(replace(TINY, dim=60, heads=(6, 6)))
    block = model.groups[0].blocks[1]
    overlap = model.groups[0].overlap.attention
    for weight in (block.mlp.fc1.weight, block.attention.table, overlap.table, overlap.qkv.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.mlp.fc1.bias.eq(0).all()
    bound = (60 * 9) ** -0.5  # PyTorch's own for a convolution
    assert block.conv.compress.weight.abs().max().item() == pytest.approx(bound, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 5}, "scale=5: must be 3 or a power of two"),
        ({"heads": (3, 2)}, r"heads=\(3, 2\): must divide dim=16"),
        ({"heads": (2,)}, r"heads=\(2,\): must have an entry for each of depths=\(2, 1\)"),
        ({"depths": (2, 0)}, r"depths=\(2, 0\): must be an integer of at least 1"),
        ({"compress": 17}, "compress=17: must leave a channel of dim=16"),
        ({"squeeze": 30}, "squeeze=30: must leave a channel of dim=16"),
        ({"overlap": -1}, "overlap=-1: must be at least 0"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: must be positive"),
        ({"image_range": 0}, "image_range=0: must be positive"),
        ({"drop_path": 1}, "drop_path=1: must be in"),
        ({"window": 1}, "a window of 1 can't shift"),
        ({"positions": 7}, "positions=7: must be None or a multiple of window"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_images_that_do_not_fit() -> None:
    model = HAT(TINY)
    with pytest.raises(ValueError, match="8 x 9: both sides must be multiples of the window, 4"):
        model(torch.rand(1, 3, 8, 9))
    with pytest.raises(ValueError, match="4 channels, the model takes 3"):
        model(torch.rand(1, 4, 8, 8))
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="absolute positions tie this model to 8 x 8"):
        HAT(replace(TINY, positions=8))(torch.rand(1, 3, 8, 12))
