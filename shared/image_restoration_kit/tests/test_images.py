from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from image_restoration_kit import PictureError, find_images, read_picture, read_tensor
from image_restoration_kit import write_picture as write
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)


def pixels(*shape: int, bits: int = 8) -> np.ndarray:
    return RNG.integers(0, 2**bits, shape).astype({8: np.uint8, 16: np.uint16}[bits])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_eight_bits_come_back_as_they_were(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    values = pixels(*shape)
    Image.fromarray(values).save(tmp_path / f"in{suffix}")
    picture = read_picture(tmp_path / f"in{suffix}")
    assert (picture.bits, picture.alpha, len(picture.color)) == (
        8,
        None,
        1 if len(shape) == 2 else 3,
    )
    write(tmp_path / f"out{suffix}", picture.color, info=picture.info)
    assert (np.asarray(Image.open(tmp_path / f"out{suffix}")) == values).all()


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_transparency_is_kept(tmp_path: Path, mode: str, channels: int) -> None:
    values = pixels(6, 4, len(mode))
    Image.fromarray(values).save(tmp_path / "in.png")
    picture = read_picture(tmp_path / "in.png")
    assert picture.alpha is not None
    assert (len(picture.color), len(picture.alpha)) == (channels, 1)
    write(tmp_path / "out.png", picture.color, alpha=picture.alpha)
    assert (np.asarray(Image.open(tmp_path / "out.png")) == values).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str, channels: int) -> None:
    values = pixels(5, 7, channels, bits=16)
    cv2.imwrite(str(tmp_path / f"in{suffix}"), values)
    picture = read_picture(tmp_path / f"in{suffix}")
    assert picture.bits == 16
    write(tmp_path / f"out{suffix}", picture.color, alpha=picture.alpha, bits=16)
    found = cv2.imread(str(tmp_path / f"out{suffix}"), cv2.IMREAD_UNCHANGED)
    assert (found.reshape(values.shape) == values).all()


def test_palettes_and_cmyk_become_rgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(pixels(8, 8, 3))
    rgb.quantize(16).save(tmp_path / "palette.png")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", icc_profile=b"of the inks")
    for name in ("palette.png", "cmyk.jpg"):
        picture = read_picture(tmp_path / name)
        assert picture.color.shape == (3, 8, 8)
        assert "icc_profile" not in picture.info
    clear = Image.fromarray(pixels(8, 8)).convert("P")
    clear.putpixel((0, 0), 0)  # GIF drops colours that no pixel has
    clear.save(tmp_path / "clear.gif", transparency=0)
    assert read_picture(tmp_path / "clear.gif").alpha is not None


def test_rotation_is_applied_and_metadata_travels(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image, exif = Image.fromarray(pixels(4, 6, 3)), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    image.save(tmp_path / "in.png", exif=exif, icc_profile=profile, dpi=(300, 300))
    picture = read_picture(tmp_path / "in.png")
    assert picture.color.shape == (3, 6, 4)
    for suffix, bits in ((".png", 8), (".jpg", 8), (".png", 16)):
        target = write(tmp_path / f"out{bits}{suffix}", picture.color, bits=bits, info=picture.info)
        with Image.open(target) as written:
            assert written.size == (4, 6)
            assert written.info["icc_profile"] == profile
            assert written.getexif()[0x010F] == "A camera"
            assert 0x0112 not in written.getexif()
            assert [round(d) for d in written.info["dpi"]] == [300, 300]


def test_a_turned_picture_of_sixteen_bits(tmp_path: Path) -> None:
    values = pixels(4, 6, 3, bits=16)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / 65535
    write(tmp_path / "in.png", upright, bits=16, info={"exif": exif.tobytes()})
    turned = read_picture(tmp_path / "in.png")
    assert turned.bits == 16
    torch.testing.assert_close(turned.color, upright.rot90(-1, (1, 2)))


def test_one_pixel(tmp_path: Path) -> None:
    Image.fromarray(pixels(1, 1, 3)).save(tmp_path / "one.png")
    assert read_picture(tmp_path / "one.png").color.shape == (3, 1, 1)


def test_grey_is_repeated_for_tensors(tmp_path: Path) -> None:
    Image.fromarray(pixels(3, 4)).save(tmp_path / "grey.png")
    assert read_tensor(tmp_path / "grey.png").shape == (3, 3, 4)


def spoiled(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.png"
    image = Image.fromarray(pixels(32, 32, 3))
    match kind:
        case "empty":
            path.touch()
        case "text":
            path.write_text("not a picture")
        case "truncated":
            image.save(path)
            path.write_bytes(path.read_bytes()[:-1500])
        case "animated":
            path = path.with_suffix(".gif")
            image.save(path, save_all=True, append_images=[Image.fromarray(pixels(32, 32, 3))])
        case "float":
            path = path.with_suffix(".tif")
            Image.fromarray(np.ones((4, 4), np.float32)).save(path)
        case "deep":
            path = path.with_suffix(".tif")
            Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is empty"),
        ("text", "not an image"),
        ("truncated", "damaged or cut off"),
        ("animated", "animated or has pages: 2 of them"),
        ("float", "floating-point values"),
        ("deep", "32-bit values"),
    ],
)
def test_files_that_are_no_picture_are_named(tmp_path: Path, kind: str, message: str) -> None:
    path = spoiled(tmp_path, kind)
    with pytest.raises(PictureError, match=message) as error:
        read_picture(path)
    assert str(path) in str(error.value)


def test_huge_pictures_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels(8, 8)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(PictureError, match="too large to be read at once"):
        read_picture(tmp_path / "huge.png")


def test_formats_that_cannot_hold_a_picture_say_so(tmp_path: Path) -> None:
    color, alpha = torch.rand(3, 4, 4), torch.rand(1, 4, 4)
    with pytest.raises(PictureError, match=r"\.jpg holds no transparency"):
        write(tmp_path / "a.jpg", color, alpha=alpha)
    with pytest.raises(PictureError, match=r"\.webp holds 8 bits"):
        write(tmp_path / "a.webp", color, bits=16)
    with pytest.raises(PictureError, match="unknown image suffix"):
        write(tmp_path / "a.xyz", color)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write(tmp_path / "a.png", torch.zeros(3, 4, 4))
    before = target.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write(target, torch.ones(3, 4, 4))
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_finding_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in find_images([tmp_path])] == ["a.JPG", "b.png"]
    with pytest.raises(FileNotFoundError, match="no file or folder at"):
        find_images([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        find_images([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_picture(tmp_path / "none.png")
