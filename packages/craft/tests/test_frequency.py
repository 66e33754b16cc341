"""Low-pass filters, and what the network becomes with them."""

import pytest
import torch
from craft import CRAFT
from craft.frequency import filtered_branch, input_curve, low_pass
from craft.paper import PAPER


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 6)])
def test_the_ends_of_the_radius(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    torch.testing.assert_close(low_pass(image, 1.5), image)
    mean = image.mean((-2, -1), keepdim=True).expand_as(image)
    torch.testing.assert_close(low_pass(image, 0), mean)
    with pytest.raises(ValueError, match="radius=-1: must be at least 0"):
        low_pass(image, -1)


def test_a_wave_passes_up_to_its_own_frequency() -> None:
    wave = torch.sin(2 * torch.pi * 4 * torch.arange(16) / 16).expand(1, 16, 16)
    torch.testing.assert_close(low_pass(wave, 0.51), wave, atol=1e-5, rtol=0)
    assert low_pass(wave, 0.49).abs().max() < 1e-5


def test_filtering_the_branch_ends_with_its_block() -> None:
    torch.manual_seed(0)
    model, image = CRAFT(PAPER.tiny[0]).eval(), torch.rand(1, 3, 8, 8)
    before = model(image)
    with filtered_branch(model, 1.5):
        torch.testing.assert_close(model(image), before)
    with filtered_branch(model, 0.2):
        assert not torch.allclose(model(image), before)
    assert model(image).equal(before)


def test_psnr_falls_with_the_radius_of_what_is_enlarged() -> None:
    from image_restoration_kit.short_runs import BicubicSkip

    model = BicubicSkip(CRAFT(PAPER.tiny[0])).eval()
    truth = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16), scale_factor=2)[0]
    low = torch.nn.functional.avg_pool2d(truth, 2)[None]
    curve = input_curve(model, low, truth, (0.2, 0.6, 1.5))
    assert curve == sorted(curve)
