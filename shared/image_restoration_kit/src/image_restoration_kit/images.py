"""Image files in and out without losing what they hold: transparency, 16 bit, grey, metadata."""

import struct
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_core import atomic_path
from einops import rearrange
from jaxtyping import Float, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")
"""Formats that hold 16 bits."""
OPAQUE_SUFFIXES = (".jpg", ".jpeg", ".bmp")
_LEVELS = {8: 255, 16: 65535}
_DTYPES = {8: torch.uint8, 16: torch.uint16}


class PictureError(ValueError):
    """A file that can't be read as one picture, or a picture that a format can't hold."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture; equal grey channels are kept as one."""

    color: Float[Tensor, "c h w"]
    """Grey or RGB in [0, 1]."""
    alpha: Float[Tensor, "1 h w"] | None = None
    """Opacity in [0, 1]."""
    bits: int = 8
    """Of each channel in the file, 8 or 16."""
    info: dict[str, Any] = field(default_factory=dict)
    """Colour profile, resolution and EXIF (without the rotation, which is applied)."""


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files among ``paths`` and directly below the folders among them, sorted.

    Raises:
        FileNotFoundError: for a path that is not there.
        ValueError: for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"{path} holds no images ({', '.join(SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"no file or folder at {path}")
    return found


def read_picture(path: str | Path) -> Picture:
    """The picture in a file: palettes and CMYK become RGB, the EXIF rotation is applied.

    Raises:
        PictureError: for a file that is empty, damaged, cut off, animated, huge, or no image.
        FileNotFoundError: when there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    if not path.stat().st_size:
        raise PictureError(f"{path} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _decode(image, path)
    except UnidentifiedImageError:
        raise PictureError(f"{path} is not an image, or its header is damaged") from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} is too large to be read at once: {error}") from None
    except (OSError, SyntaxError, EOFError, ValueError, IndexError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{path} is damaged or cut off: {error}") from error


def write_picture(
    path: str | Path,
    color: Shaped[Tensor, "c h w"],
    *,
    alpha: Shaped[Tensor, "1 h w"] | None = None,
    bits: int = 8,
    info: dict[str, Any] | None = None,
) -> Path:
    """Write a picture, whole or not at all; the suffix tells the format.

    Args:
        path: JPEG and WebP are written at quality 95.
        color: grey or RGB, in [0, 1] or as integers of ``bits``.
        alpha: opacity, likewise.
        bits: 8 or 16.
        info: of the picture that it was made from.

    Raises:
        PictureError: for an unknown suffix, or a format without transparency or 16 bits.
    """
    path, info = Path(path), dict(info or {})
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PictureError(f"{path}: unknown image suffix, use one of {', '.join(SUFFIXES)}")
    if alpha is not None and suffix in OPAQUE_SUFFIXES:
        raise PictureError(f"{path}: {suffix} holds no transparency; write .png, .webp or .tif")
    if bits == 16 and suffix not in DEEP_SUFFIXES:
        raise PictureError(f"{path}: {suffix} holds 8 bits; write {' or '.join(DEEP_SUFFIXES)}")
    planes = to_integers(color if alpha is None else torch.cat([color, alpha]), bits)
    pixels = rearrange(planes.cpu().numpy(), "c h w -> h w c")
    with atomic_path(path) as part:
        if bits == 16:
            _write_deep(part, pixels, info)
        else:
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            image.save(part, **_options(suffix, info))
    return path


def to_integers(image: Shaped[Tensor, "*shape"], bits: int) -> Shaped[Tensor, "*shape"]:
    """An image in [0, 1] as integers of ``bits``, rounded half to even; integers as they are."""
    if not image.is_floating_point():
        return image
    return (image.clamp(0, 1) * _LEVELS[bits]).round().to(torch.int32).to(_DTYPES[bits])


def _decode(image: Image.Image, path: Path) -> Picture:
    if getattr(image, "n_frames", 1) > 1:
        raise PictureError(
            f"{path} is animated or has pages: {image.n_frames} of them; "  # type: ignore[attr-defined]
            "save each as a picture of its own"
        )
    image.load()
    info = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key)}
    deep = _is_deep(image, path)
    orientation = image.getexif().get(0x0112, 1)
    if deep and image.mode not in ("I;16", "I;16B", "I;16L", "I"):
        pixels = _read_deep(path)
        if orientation != 1:
            turned = [ImageOps.exif_transpose(_plane(image, p)) for p in np.moveaxis(pixels, 2, 0)]
            pixels = np.stack([np.asarray(t) for t in turned], 2)
    else:
        image = ImageOps.exif_transpose(image)
        pixels = _pixels(image, path, deep)
    exif = ImageOps.exif_transpose(image).getexif() if orientation != 1 else image.getexif()
    if exif:
        info["exif"] = exif.tobytes()
    if image.mode == "CMYK":
        info.pop("icc_profile", None)  # it described the inks
    planes = torch.from_numpy(rearrange(pixels, "h w c -> c h w").astype(np.float32))
    planes = planes / _LEVELS[16 if deep else 8]
    color, alpha = (planes[:-1], planes[-1:]) if len(planes) in (2, 4) else (planes, None)
    return Picture(color=color, alpha=alpha, bits=16 if deep else 8, info=info)


def _is_deep(image: Image.Image, path: Path) -> bool:
    if image.mode.startswith("I"):
        return True
    if image.format == "PNG":  # Pillow reads deep colour as 8 bit; the header tells
        with path.open("rb") as file:
            return file.read(25)[24] == 16
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) == 16  # type: ignore[attr-defined]
    return False


def _pixels(image: Image.Image, path: Path, deep: bool) -> np.ndarray:
    if deep:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > _LEVELS[16]:
            raise PictureError(f"{path} holds 32-bit values; save it with 16 bits")
        return values[..., None]
    if image.mode == "F":
        raise PictureError(f"{path} holds floating-point values; save it with 8 or 16 bits")
    seen = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    grey = image.mode in ("1", "L", "LA", "La")
    mode = {(True, False): "L", (True, True): "LA", (False, False): "RGB", (False, True): "RGBA"}
    pixels = np.asarray(image.convert(mode[grey, seen]))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _plane(image: Image.Image, values: np.ndarray) -> Image.Image:
    """One 16-bit channel with the EXIF of its picture, so that Pillow can turn it."""
    plane = Image.fromarray(values.astype(np.int32))
    plane.getexif()[0x0112] = image.getexif()[0x0112]
    return plane


def _read_deep(path: Path) -> np.ndarray:
    import cv2

    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    if pixels is None:
        raise PictureError(f"{path} is damaged, or of a 16-bit kind that OpenCV does not read")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    order = {1: [0], 2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[-1]]
    return pixels[..., order]


def _write_deep(path: Path, pixels: np.ndarray, info: dict[str, Any]) -> None:
    import cv2

    if pixels.shape[-1] == 2:  # OpenCV writes no grey with transparency
        pixels = pixels[..., [0, 0, 0, 1]]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[-1]]
    if not cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., order])):
        raise PictureError(f"{path} could not be written with 16 bits")
    if path.suffix.lower() == ".png":
        head, rest = path.read_bytes()[:33], path.read_bytes()[33:]  # signature and header
        path.write_bytes(b"".join([head, *_png_chunks(info), rest]))


def _png_chunks(info: dict[str, Any]) -> list[bytes]:
    """Colour profile, resolution and EXIF, which OpenCV does not write."""
    found = []
    if profile := info.get("icc_profile"):
        found.append((b"iCCP", b"profile\0\0" + zlib.compress(profile)))
    if dpi := info.get("dpi"):
        found.append((b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in dpi), 1)))
    if exif := info.get("exif"):
        found.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    return [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in found
    ]


def _options(suffix: str, info: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: info[key] for key in ("icc_profile", "dpi", "exif") if key in info}
    match suffix:
        case ".jpg" | ".jpeg":
            return {**kept, "quality": 95, "subsampling": 0}
        case ".webp":
            return {**kept, "quality": 95}
        case ".tif" | ".tiff":
            return {**kept, "compression": "tiff_lzw"}
        case ".bmp":
            return {}
    return kept


def read_tensor(path: str | Path) -> Float[Tensor, "3 h w"]:
    """The colours of a picture as RGB in [0, 1]; transparency is left out, grey repeated."""
    return read_picture(path).color.expand(3, -1, -1)
