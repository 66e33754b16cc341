"""Sizes, regions, losses, and what users are told of bad input."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rat import RAT, CharbonnierLoss, FocalRegionLoss, RATConfig, make_regions, regions_from_masks
from rat.paper import PAPER

TINY = PAPER.tiny[0]


def active(config: RATConfig) -> RAT:
    """A network whose attention is switched on."""
    torch.manual_seed(0)
    model = RAT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4]))
def test_any_size(height: int, width: int, scale: int) -> None:
    model = RAT(RATConfig(scale=scale, width=4, heads=2, blocks=1, layers=1))
    regions = torch.randint(0, 3, (height * scale, width * scale))
    out = model(torch.rand(2, 1, height, width), regions)
    assert out.shape == (2, 1, height * scale, width * scale)


def test_sides_are_mirrored_and_labels_repeated() -> None:
    model = active(TINY)
    image, regions = torch.rand(1, 1, 13, 22), torch.randint(0, 4, (1, 13, 22))
    mirrored = F.pad(image, (0, 2, 0, 3), "reflect")
    repeated = F.pad(regions[None].float(), (0, 2, 0, 3), "replicate")[0]
    torch.testing.assert_close(model(image, regions), model(mirrored, repeated)[..., :13, :22])


def test_a_pixel_meets_its_region_only_and_wherever_it_lies() -> None:
    config = RATConfig(
        width=4, heads=2, blocks=1, layers=1, encoder_depths=(0,), decoder_depths=(0,)
    )
    model = active(config)
    with torch.no_grad():
        model.blocks[0].layers[0].window_scale.zero_()
    regions = torch.zeros(16, 64)
    regions[:, 16:32] = 1
    regions[:, 40:] = 2
    regions[:, 48:] = 1
    image = torch.rand(1, 1, 16, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(image, regions)[..., 22:26].sum(), image)
    touched = gradient[0, 0].abs().amax(0) > 0
    assert touched[52:60].all()
    assert not touched[4:12].any()
    assert not touched[42:46].any()


def test_labels_of_any_type_and_one_map_for_all() -> None:
    model = active(TINY)
    image, regions = torch.rand(2, 1, 16, 16), torch.randint(0, 5, (16, 16))
    expected = model(image, regions)
    for other in (regions.float(), regions.byte(), 10**6 * regions, regions.expand(2, 16, 16)):
        torch.testing.assert_close(model(image, other), expected)
    with pytest.warns(UserWarning, match="no regions given: the whole image is one"):
        torch.testing.assert_close(model(image), model(image, torch.zeros(16, 16)))


def test_starts_as_the_bilinear_image_plus_a_convolution() -> None:
    model = RAT(RATConfig(scale=2, width=4, heads=2, blocks=1, layers=1))
    torch.nn.init.zeros_(model.output.weight)
    torch.nn.init.zeros_(model.output.bias)
    image = torch.rand(1, 1, 8, 16)
    large = F.interpolate(image, scale_factor=2, mode="bilinear")
    assert model(image, torch.zeros(16, 32)).equal(large)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "heads=5: must divide the width of the coarsest level, 32"),
        ({"decoder_depths": (1,)}, "must have as many levels as encoder_depths, 2"),
        ({"encoder_depths": (1, -1)}, "must be integers of at least 0"),
        ({"window": 0}, "window=0: must be an integer of at least 1"),
        ({"blocks": -1}, "blocks=-1: must be at least 0"),
        ({"mlp_ratio": 0.01}, "mlp_ratio=0.01: leaves no hidden channel"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RATConfig(**{"width": 8, "heads": 4, **changes})


@pytest.mark.parametrize(
    ("image", "regions", "message"),
    [
        (torch.rand(1, 1, 8, 8), torch.zeros(8, 9), r"a region map of \[8, 9\] for restored"),
        (torch.rand(2, 1, 8, 8), torch.zeros(3, 8, 8), r"a region map of \[3, 8, 8\]"),
        (torch.rand(1, 1, 8, 8), torch.full((8, 8), -1), "the label -1: labels are at least 0"),
        (torch.rand(1, 1, 8, 8), torch.full((8, 8), 0.5), "labels that are not whole numbers"),
        (torch.rand(1, 1, 8, 8), torch.full((8, 8), torch.nan), "with the label nan"),
        (torch.rand(1, 3, 8, 8), torch.zeros(8, 8), "3 channels, the model takes 1"),
        (torch.full((1, 1, 8, 8), torch.nan), torch.zeros(8, 8), "NaN or infinite"),
        (torch.rand(0, 1, 8, 8), torch.zeros(8, 8), r"an empty image: \[0, 1, 8, 8\]"),
    ],
)
def test_input_that_does_not_fit(image: Any, regions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RAT(TINY)(image, regions)


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        RAT(TINY)(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(8, 8))


def test_focal_region_loss() -> None:
    clean, regions = torch.zeros(2, 1, 2, 2), torch.tensor([[0, 0], [7, 7]])
    error = torch.tensor([[0.1, 0.3], [0.4, 0.4]]).expand(2, 1, 2, 2).clone()
    error[1] /= 2
    expected = torch.tensor([[1 + 0.5, 1 + 0.5], [2.0, 2.0]])
    weights = FocalRegionLoss(1.0).weights(error, regions)
    torch.testing.assert_close(weights[0, 0], expected)
    torch.testing.assert_close(weights[1, 0], 1 + (expected - 1) / 2)
    assert FocalRegionLoss(0.0)(error, clean, regions) == pytest.approx(error.mean().item())
    assert FocalRegionLoss()(clean, clean, regions) == 0
    assert CharbonnierLoss(0.1)(clean, clean) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="a label for each pixel"):
        FocalRegionLoss()(error, clean, torch.zeros(3, 2))


def test_masks_are_painted_by_area() -> None:
    small, large = torch.zeros(4, 4, dtype=torch.bool), np.zeros((4, 4), bool)
    small[1, 1] = True
    large[:3, :3] = True
    painted = regions_from_masks([small, large])
    assert painted[1, 1] == 2
    assert painted[0, 0] == 1
    assert painted[3, 3] == 3
    assert regions_from_masks([], (2, 2)).eq(1).all()
    with pytest.raises(ValueError, match="masks of one size are needed"):
        regions_from_masks([small], (5, 4))


@pytest.mark.parametrize("method", ["felzenszwalb", "slic", "quantiles"])
def test_two_flat_halves_are_told_apart(method: str) -> None:
    image = torch.full((1, 32, 32), 0.2)
    image[..., 16:] = 0.8
    labels = make_regions(image, method)
    left, right = set(labels[:, :14].unique().tolist()), set(labels[:, 18:].unique().tolist())
    assert not left & right
    assert labels.dtype == torch.int64


def test_segment_anything_is_one_method_among_others() -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    seen = []

    def generator(picture: Any, **options: int) -> dict[str, Any]:
        seen.append((picture.size, options["points_per_crop"]))
        return {"masks": [mask]}

    labels = make_regions(torch.rand(1, 8, 8), "sam", generator=generator, points=16)
    assert seen == [((8, 8), 16)]
    assert labels.unique().tolist() == [1, 2]
    assert make_regions(torch.rand(3, 4, 4), "one").eq(0).all()
    with pytest.raises(ValueError, match="regions by 'snake': must be one of felzenszwalb"):
        make_regions(torch.rand(1, 8, 8), "snake")
