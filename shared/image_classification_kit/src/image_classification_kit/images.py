"""Image files in, whatever their mode, and the field's evaluation crop at any size."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_PIXELS = 1 << 28
"""Larger pictures are refused: decoded, they would fill gigabytes."""


class ImageError(ValueError):
    """A file that can't be read as a picture."""


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files among ``paths`` and below the folders among them, sorted.

    Raises:
        FileNotFoundError: for a path that is not there.
        ImageError: for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ImageError(f"{path} holds no images ({', '.join(SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"no file or folder at {path}")
    return found


def read_image(path: str | Path) -> Image.Image:
    """The picture in a file as RGB, turned as its EXIF says.

    Grey, palette, CMYK and 16-bit files are converted; what is transparent becomes white; of an
    animation the first frame is taken.

    Raises:
        ImageError: a file that is empty, damaged, cut off, too large or no image.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ImageError(
                        f"{path} is too large: {image.width} x {image.height} pixels, "
                        f"at most {MOST_PIXELS} are read"
                    )
                image.load()
                return _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is too large: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image, or its header is damaged") from None
    except ImageError:
        raise
    except (OSError, SyntaxError, EOFError, ValueError, IndexError) as error:
        raise ImageError(f"{path} is damaged or cut off: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bit and more: to the full range
        values = np.asarray(image).astype(np.float64)
        top = 65535 if image.mode.startswith("I;16") else max(values.max(), 1)
        image = Image.fromarray((values.clip(0) / top * 255).round().astype(np.uint8))
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a picture to what a network takes.

    The short side is resized to ``size / crop``, bicubic, and a square of ``size`` is cut from the
    centre; ``size=None`` leaves the picture as it is.
    """

    size: int | None = 224
    crop: float = 0.875
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size={self.size}: must be at least 1")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop={self.crop}: must be above 0 and at most 1")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"mean={self.mean}, std={self.std}: need a positive std per mean")

    def picture(self, image: Image.Image) -> Image.Image:
        """The part of ``image`` that the network sees."""
        if self.size is None:
            return image
        image = _less_elongated(image)
        short = int(self.size / self.crop)
        width, height = image.size
        scale = short / min(width, height)
        size = (
            short if width <= height else int(width * scale),
            short if height <= width else int(height * scale),
        )
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((side - self.size) / 2) for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))

    def __call__(self, image: Image.Image) -> Float[Tensor, "channels height width"]:
        return self.normalise(to_tensor(self.picture(image)))

    def normalise(self, x: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch d h w"]:
        """Values in [0, 1] to what the network takes; grey where mean has one entry."""
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        if len(self.mean) == 1 and x.shape[-3] == 3:
            x = x.mean(-3, keepdim=True)
        return (x - mean) / std


def to_tensor(image: Image.Image) -> Float[Tensor, "channels height width"]:
    """Values in [0, 1]."""
    pixels = np.array(image, dtype=np.float32) / 255
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _less_elongated(image: Image.Image, most: int = 8) -> Image.Image:
    """The middle of a strip: only its centre is seen, and enlarged whole it would be huge."""
    width, height = image.size
    w, h = min(width, most * height), min(height, most * width)
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h)) if (w, h) != (width, height) else image
