import hashlib
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import skimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_restoration_kit import luma, modcrop, psnr, quantise, resize, ssim, ycbcr
from image_restoration_kit.photographs import photograph
from torch import Tensor


def test_golden_resize(golden: Any) -> None:
    case = golden("bicubic_resize")
    image = case.inputs()["image"]
    outputs = {f"down_x{s}": resize(image, Fraction(1, s)) for s in (2, 3, 4)}
    outputs |= {f"up_x{s}": resize(image, s) for s in (2, 3, 4)}
    assert case.failures(outputs) == {}


def test_golden_metrics(golden: Any) -> None:
    case = golden("metrics_color")
    inputs = case.inputs()
    numbers = inputs["reference"], (inputs["reference"] + inputs["noise"]).clip(0, 255)
    target, image = (x.permute(2, 0, 1).to(torch.uint8) for x in numbers)
    flat = torch.full_like(target, 128)

    def values(metric: Any, pairs: list[tuple[Tensor, Tensor, int]], **options: Any) -> Tensor:
        found = [metric(a, b, border=border, **options) for a, b, border in pairs]
        return torch.tensor(found, dtype=torch.float64)

    pairs = [*((image, target, border) for border in (0, 2, 3, 4)), (flat, target, 4)]
    color = [(image, target, 4), (flat, target, 4)]
    outputs = {
        "psnr_y": values(psnr, pairs),
        "ssim_y": values(ssim, [*pairs, (target, target, 4)]),
        "psnr_rgb": values(psnr, color, on_luma=False),
        "ssim_rgb": values(ssim, color, on_luma=False),
        "y_of_reference": luma(target).permute(1, 2, 0),
        "ycbcr_of_reference": ycbcr(target).permute(1, 2, 0),
        "y_uint8_of_reference": luma(target)[0].round(),
    }
    assert case.failures(outputs) == {}


def test_golden_baseline_on_photographs(golden: Any) -> None:
    case = golden("bicubic_baseline_photographs")
    outputs = {}
    folder = Path(skimage.__file__).parent / "data"
    for name, digest in case.config["sha256_first_16"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] == digest
        for scale in (2, 3, 4):
            high = modcrop(photograph(name), scale)
            low = quantise(resize(high, Fraction(1, scale))).float() / 255
            out, truth = quantise(resize(low, scale)), quantise(high)
            pair = [metric(out, truth, border=scale) for metric in (psnr, ssim)]
            outputs[f"{name}:x{scale}"] = torch.tensor(pair, dtype=torch.float64)
    for name, expected in case.record["outputs"].items():
        found, wanted = outputs[name], torch.tensor(expected["sample"])
        assert abs(found[0] - wanted[0]) < 1e-4
        assert abs(found[1] - wanted[1]) < 1e-6


def naive_resize(row: list[float], scale: float, antialias: bool) -> list[float]:
    """One axis by the written rule, a sum per output."""
    n, out = len(row), math.ceil(len(row) * scale)
    s = scale if antialias and scale < 1 else 1.0

    def cubic(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0

    def pixel(i: int) -> float:
        while not 1 <= i <= n:
            i = 1 - i if i < 1 else 2 * n + 1 - i
        return row[i - 1]

    result = []
    for k in range(1, out + 1):
        u = k / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - 2 / s)
        taps = range(left, left + math.ceil(4 / s) + 2)
        weights = [cubic(s * (u - i)) for i in taps]
        total = sum(w * pixel(i) for w, i in zip(weights, taps, strict=True))
        result.append(total / sum(weights))
    return result


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 17),
    st.sampled_from([0.5, 0.25, 0.7, 1.5, 2, 3, 4, 1.0]),
    st.booleans(),
)
def test_resize_is_the_rule(length: int, scale: float, antialias: bool) -> None:
    row = torch.rand(1, length, dtype=torch.float64)
    found = resize(row.expand(3, -1)[:1], scale, antialias=antialias)
    column = resize(row.mT, scale, antialias=antialias)
    expected = torch.tensor(naive_resize(row[0].tolist(), scale, antialias), dtype=torch.float64)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(column[:, 0], expected)


def test_a_third_of_a_multiple_of_three_is_exact() -> None:
    assert resize(torch.rand(9, 6), 1 / 3).shape == (3, 2)
    assert resize(torch.rand(10, 6), Fraction(1, 3)).shape == (4, 2)


def test_resize_is_differentiable() -> None:
    image = torch.rand(1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, 2), image)


def test_rounding_is_half_to_even_and_clamped() -> None:
    values = torch.tensor([-1.0, 0.5 / 255, 1.5 / 255, 2.0], dtype=torch.float64)
    assert quantise(values).tolist() == [0, 0, 2, 255]


def test_equal_images_are_infinitely_alike() -> None:
    image = torch.rand(3, 20, 20)
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1)


def test_grey_images_are_used_as_they_are() -> None:
    a, b = torch.rand(1, 16, 16), torch.rand(1, 16, 16)
    assert psnr(a, b) == psnr(a, b, on_luma=False)


def test_messages() -> None:
    image = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match="different shapes"):
        psnr(image, image[:, :8])
    with pytest.raises(ValueError, match="border=8: leaves nothing"):
        psnr(image, image, border=8)
    with pytest.raises(ValueError, match="SSIM needs 11 pixels per side inside the border of 4"):
        ssim(image, image, border=4)
    with pytest.raises(ValueError, match="4 channels; colour has 3"):
        luma(torch.rand(4, 8, 8))
    with pytest.raises(TypeError, match="int64"):
        psnr(image.long(), image.long())
    with pytest.raises(TypeError, match="floating-point images"):
        resize(quantise(image), 2)
    for scale in (0, -1, math.inf):
        with pytest.raises(ValueError, match="must be positive"):
            resize(image, scale)
