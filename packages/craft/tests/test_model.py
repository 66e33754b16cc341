"""Configurations, shapes, training behaviour and messages."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from craft import CRAFT, CRAFTConfig
from craft.paper import PAPER
from hypothesis import given, settings
from hypothesis import strategies as st

TINY = PAPER.tiny[0]


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([(2, 4), (2, 3), (1, 2), (3, 3)]),
)
def test_any_whole_number_of_rectangles(
    scale: int, channels: int, rows: int, columns: int, window: tuple[int, int]
) -> None:
    config = replace(TINY, scale=scale, channels=channels, window=window, depths=(1,), heads=(2,))
    model = CRAFT(config)
    image = torch.rand(2, channels, rows * model.multiple, columns * model.multiple)
    assert model(image).shape == (2, channels, *(scale * s for s in image.shape[2:]))


def test_initialisation() -> None:
    torch.manual_seed(0)
    block = CRAFT(CRAFTConfig(scale=2)).groups[0].blocks[0]
    shifted = block.rectangles[1]
    for weight in (shifted.mlp.fc1.weight, shifted.attention.qkv.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert shifted.mlp.fc1.bias.eq(0).all()
    for weight in (block.fusion.gate.fc1.weight, block.high.merge.weight):  # 1x1 convolutions
        assert weight.abs().max().item() == pytest.approx(48**-0.5, rel=0.05)
    assert block.fusion.attention.temperature.eq(1).all()


def test_the_published_network_learns_no_positions() -> None:
    frozen = [
        name for name, p in CRAFT(CRAFTConfig(scale=4)).named_parameters() if not p.requires_grad
    ]
    assert len(frozen) == 448
    assert all(".positions." in name for name in frozen)
    assert all(p.requires_grad for p in CRAFT(replace(TINY, dim=64)).parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0}, "scale=0: must be an integer of at least 1"),
        ({"dim": 24}, "dim=24: must be even and at least 32"),
        ({"heads": (3, 2)}, r"heads=\(3, 2\): must be even and divide dim=32"),
        ({"heads": (6, 2)}, r"heads=\(6, 2\): must be even and divide dim=32"),
        ({"heads": (2,)}, r"heads=\(2,\): must have an entry for each of depths=\(2, 1\)"),
        ({"window": (0, 4)}, r"window=\(0, 4\): must be an integer of at least 1"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: must be positive"),
        ({"fusion_ratio": 0.01}, r"fusion_ratio=0\.01: must be positive"),
        ({"image_range": 0}, "image_range=0: must be positive"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_images_that_do_not_fit() -> None:
    model = CRAFT(TINY)
    with pytest.raises(ValueError, match="8 x 9: both sides must be multiples of the window, 4"):
        model(torch.rand(1, 3, 8, 9))
    with pytest.raises(ValueError, match="1 channels, the model takes 3"):
        model(torch.rand(1, 1, 8, 8))
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
