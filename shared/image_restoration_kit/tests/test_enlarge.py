import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_core.golden import seeded_tensor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_restoration_kit import (
    Picture,
    Tiling,
    automatic_tiling,
    enlarge,
    enlarge_picture,
    pad_to_multiple,
    quantise,
    resize,
    seam_error,
    self_ensemble,
    symmetry,
)
from image_restoration_kit.images import to_integers


def test_golden_ensemble_and_rounding(golden: Any) -> None:
    case = golden("self_ensemble_and_rounding")
    inputs = case.inputs()
    weight = seeded_tensor("toy.weight", (12, 3, 3, 3))

    def network(x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(F.conv2d(x, weight, padding=1), 2)

    outputs = {
        "single": network(inputs["image"]),
        "self_ensemble": self_ensemble(network, inputs["image"]),
        "uint8_rgb_hwc": quantise(inputs["raw"])[0].permute(1, 2, 0),
    }
    assert case.failures(outputs) == {}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=st.integers(1, 37),
    width=st.integers(1, 37),
    tile=st.sampled_from([4, 8, 12]),
    halo=st.sampled_from([4, 8]),
    ensemble=st.booleans(),
)
def test_tiles_with_a_halo_beyond_the_reach_equal_the_whole(
    toys: Any, height: int, width: int, tile: int, halo: int, ensemble: bool
) -> None:
    toy = toys().eval()
    image = torch.rand(2, 3, height, width)
    whole = enlarge(toy, image, ensemble=ensemble)
    assert whole.shape == (2, 3, 2 * height, 2 * width)
    tiled = enlarge(toy, image, tiling=Tiling(tile=tile, halo=halo), ensemble=ensemble)
    torch.testing.assert_close(tiled, whole)


def test_without_a_halo_the_seam_shows_and_its_error_is_told(toy: Any) -> None:
    image = torch.rand(1, 3, 24, 40)
    whole, tiling = enlarge(toy, image), Tiling(tile=8, halo=0)
    tiled = enlarge(toy, image, tiling=tiling)
    assert (tiled - whole).abs().max() > 1e-3
    told = seam_error(toy, image, tiling)
    assert told is not None
    at_seam = (tiled - whole)[..., 2 * 16 - 8 : 2 * 16 + 8].abs().max().item()
    assert told.largest == pytest.approx(at_seam, rel=0.9)
    assert 0 < told.psnr < 60
    exact = seam_error(toy, image, Tiling(tile=8, halo=4))
    assert exact is not None
    assert (exact.largest, exact.psnr) == (0, math.inf)
    toy.reach = None
    assert seam_error(toy, image, Tiling(tile=8, halo=4)).largest < 1e-5
    assert seam_error(toy, image, Tiling(tile=40, halo=4)) is None


def test_a_tile_never_sees_more_than_itself_and_its_halo(toy: Any) -> None:
    seen: list[int] = []
    toy.register_forward_pre_hook(lambda module, given: seen.append(max(given[0].shape[-2:])))
    image = torch.rand(1, 3, 200, 120)
    result = enlarge(toy, image, tiling=Tiling(tile=16, halo=4), bits=8)
    seam_error(toy, image, Tiling(tile=16, halo=4))
    assert max(seen) <= 16 + 2 * 4
    assert result.dtype == torch.uint8


def test_large_images_are_tiled_by_themselves(toy: Any) -> None:
    assert automatic_tiling(toy, 256, 256) is None
    tiling = automatic_tiling(toy, 3000, 3000)
    assert tiling is not None
    tiling.check(4)
    assert (tiling.tile + 2 * tiling.halo) ** 2 <= 256 * 256
    toy.multiple = 48
    automatic_tiling(toy, 3000, 3000).check(48)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 4, 16]))
def test_padding_mirrors_then_repeats(height: int, width: int, multiple: int) -> None:
    image = torch.rand(1, height, width)
    for edge in ("reflect", "symmetric"):
        padded = pad_to_multiple(image, multiple, edge)
        assert padded.shape[1] % multiple == padded.shape[2] % multiple == 0
        assert padded.shape[1] - height < multiple
        assert padded[:, :height, :width].equal(image)
    missing = -width % multiple
    if 0 < missing < width:
        expected = F.pad(image, (0, missing, 0, 0), mode="reflect")
        assert pad_to_multiple(image, multiple)[:, :height].equal(expected)
    if 0 < missing <= width:
        mirrored = image.flip(2)[:, :, :missing]
        assert pad_to_multiple(image, multiple, "symmetric")[:, :height, width:].equal(mirrored)


def test_eight_symmetries_are_different_and_undone() -> None:
    image = torch.rand(2, 3, 5)
    seen = set()
    for number in range(8):
        turned = symmetry(image, number)
        seen.add(tuple(turned.flatten().tolist()))
        assert symmetry(turned, number, undo=True).equal(image)
    assert len(seen) == 8


def test_opacity_is_left_alone_where_nothing_is_enlarged(toys: Any) -> None:
    picture = Picture(color=torch.rand(3, 9, 7), alpha=torch.rand(1, 9, 7))
    _, alpha = enlarge_picture(toys(scale=1), picture)
    assert alpha.equal(to_integers(picture.alpha, 8))


def test_pictures_keep_grey_alpha_and_bits(toy: Any) -> None:
    grey = Picture(color=torch.rand(1, 9, 7), alpha=torch.rand(1, 9, 7), bits=16)
    color, alpha = enlarge_picture(toy, grey)
    assert color.shape == alpha.shape == (1, 18, 14)
    assert color.dtype == alpha.dtype == torch.uint16
    through = enlarge(toy, grey.color.expand(3, -1, -1)[None])[0]
    mixed = (through * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).clamp(0, 1)
    assert (color[0].float() - 65535 * mixed).abs().max() <= 0.51
    _, smooth = enlarge_picture(toy, grey, alpha="bicubic")
    expected = (resize(grey.alpha, 2).clamp(0, 1) * 65535).round()
    assert smooth.float().equal(expected)


def test_grey_networks_take_grey_pictures(toys: Any) -> None:
    network = toys(channels=1).eval()
    picture = Picture(color=torch.rand(1, 8, 8), alpha=torch.rand(1, 8, 8))
    color, alpha = enlarge_picture(network, picture)
    assert color.shape == alpha.shape == (1, 16, 16)
    with pytest.raises(ValueError, match="3 channels, the network takes 1"):
        enlarge_picture(network, Picture(color=torch.rand(3, 8, 8)))


def test_progress_sees_every_tile(toy: Any) -> None:
    seen: list[int] = []
    enlarge(
        toy,
        torch.rand(1, 3, 16, 16),
        tiling=Tiling(tile=8, halo=0),
        progress=lambda boxes: seen.append(len(boxes)) or boxes,
    )
    assert seen == [4]


def test_messages(toy: Any) -> None:
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        enlarge(toy, quantise(image))
    with pytest.raises(ValueError, match="an empty image"):
        enlarge(toy, image[..., :0])
    with pytest.raises(ValueError, match="4 channels, the network takes 3"):
        enlarge(toy, torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match="NaN or infinite"):
        enlarge(toy, image / 0)
    with pytest.warns(UserWarning, match="divide 8-bit values by 255"):
        enlarge(toy, image * 255)
    with pytest.raises(ValueError, match="tile=6: must be a multiple of the network's window, 4"):
        enlarge(toy, image, tiling=Tiling(tile=6))
    with pytest.raises(ValueError, match="halo=2: must be a multiple"):
        enlarge(toy, image, tiling=Tiling(tile=8, halo=2))
    with pytest.raises(ValueError, match="edge='wrap'"):
        enlarge(toy, image, edge="wrap")
    with pytest.raises(ValueError, match="alpha='none'"):
        enlarge_picture(toy, Picture(color=image[0]), alpha="none")
