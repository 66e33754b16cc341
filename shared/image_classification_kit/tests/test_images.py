"""Any image file becomes RGB, or is named."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_classification_kit import (
    ImageError,
    Preprocessing,
    find_images,
    images,
    read_image,
    to_tensor,
)
from PIL import Image


@pytest.mark.parametrize(
    ("mode", "name", "colour", "expected"),
    [
        ("L", "a.png", 128, (128, 128, 128)),
        ("1", "a.png", 1, (255, 255, 255)),
        ("P", "a.gif", 0, None),
        ("CMYK", "a.jpg", (0, 255, 255, 0), (254, 0, 0)),
        ("RGBA", "a.png", (0, 0, 255, 0), (255, 255, 255)),
        ("LA", "a.png", (10, 255), (10, 10, 10)),
        ("I;16", "a.png", 65535, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name, colour, expected) -> None:
    Image.new(mode, (5, 4), colour).save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert (found.mode, found.size) == ("RGB", (5, 4))
    if expected is not None:
        assert np.abs(np.subtract(found.getpixel((2, 2)), expected)).max() <= 2


def test_animation_gives_its_first_frame(tmp_path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_exif_turns_the_picture(tmp_path) -> None:
    image = Image.new("RGB", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (3, 6)


def test_bad_files_are_named(tmp_path, monkeypatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"cut\.png is damaged or cut off"):
        read_image(tmp_path / "cut.png")
    for name in ("text", "empty"):
        with pytest.raises(ImageError, match=rf"{name}\.png is not an image"):
            read_image(tmp_path / f"{name}.png")
    with pytest.raises(FileNotFoundError, match="no image file at"):
        read_image(tmp_path / "none.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 100)
    with pytest.raises(ImageError, match="too large: 64 x 64 pixels, at most 100"):
        read_image(tmp_path / "whole.png")


def test_find_images(tmp_path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    Image.new("L", (1, 1)).save(tmp_path / "b" / "c" / "x.PNG")
    (tmp_path / "b" / "notes.txt").write_text("")
    assert [p.name for p in find_images([tmp_path / "b"])] == ["x.PNG"]
    (tmp_path / "bare").mkdir()
    with pytest.raises(ImageError, match="bare holds no images"):
        find_images([tmp_path / "bare"])
    with pytest.raises(FileNotFoundError, match="no file or folder at"):
        find_images([tmp_path / "gone"])


@settings(max_examples=25, deadline=None)
@given(w=st.integers(1, 90), h=st.integers(1, 90), size=st.integers(1, 64))
def test_any_picture_gives_the_square(w: int, h: int, size: int) -> None:
    steps = Preprocessing(size=size)
    assert steps(Image.new("RGB", (w, h))).shape == (3, size, size)
    assert Preprocessing(size=None)(Image.new("RGB", (w, h))).shape == (3, h, w)


def test_is_the_fields_evaluation_crop() -> None:
    from timm.data import create_transform

    pixels = np.random.default_rng(1).integers(0, 255, (61, 94, 3), np.uint8)
    image = Image.fromarray(pixels)
    theirs = create_transform(input_size=32, interpolation="bicubic", crop_pct=0.875)(image)
    assert torch.allclose(Preprocessing(size=32)(image), theirs, atol=1e-5)


def test_a_strip_stays_small() -> None:
    seen = Preprocessing(size=32).picture(Image.new("RGB", (200_000, 2)))
    assert seen.size == (32, 32)


def test_grey_networks_get_one_channel() -> None:
    steps = Preprocessing(size=8, mean=(0.5,), std=(0.5,))
    assert steps(Image.new("RGB", (9, 9), "white")).eq(1).all()
    assert to_tensor(Image.new("L", (2, 3), 255)).shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size=0: must be at least 1"),
        ({"crop": 1.5}, "crop=1.5: must be above 0"),
        ({"std": (1, 1)}, "need a positive std per mean"),
    ],
)
def test_settings_are_checked(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**changes)
