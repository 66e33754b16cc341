"""Attribution maps and how far they spread."""

from typing import Any

import pytest
import torch
from image_restoration_kit.attribution import attribution_map, diffusion_index


def test_only_what_the_network_sees_is_attributed(toys: Any) -> None:
    image = torch.rand(1, 3, 24, 24)
    found = attribution_map(toys(scale=2), image, side=4)
    assert found[8:16, 8:16].min() > 0  # the square and the two pixels that the network sees
    found[8:16, 8:16] = 0
    assert found.max() == 0


def test_the_index_goes_from_one_pixel_to_all() -> None:
    single = torch.zeros(10, 10)
    single[3, 4] = 2
    assert diffusion_index(single) == pytest.approx(1)
    assert diffusion_index(torch.ones(10, 10)) == pytest.approx(100)
    half = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert diffusion_index(half) == pytest.approx(50)
