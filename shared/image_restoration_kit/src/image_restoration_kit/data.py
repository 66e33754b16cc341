"""Pairs of images in the layouts that the field keeps them in: folders, sub-images, LMDB."""

import functools
import io
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from attention_core import atomic_directory, require, write_text
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from image_restoration_kit.enlarge import symmetry
from image_restoration_kit.images import PictureError, find_images, read_tensor, write_picture
from image_restoration_kit.metrics import quantise
from image_restoration_kit.resize import modcrop, resize

TEMPLATES = ("{}", "{}x{scale}", "{}_LRBI_x{scale}")
"""How the low-resolution file of a picture is called: BasicSR, EDSR, EDSR's Manga109."""
DRAWN = "drawn"
"""As ``hr``: pictures that this module draws itself, for trials without data."""


class Images(ABC):
    """Named RGB images."""

    names: list[str]

    @abstractmethod
    def read(self, name: str) -> Float[Tensor, "3 h w"]:
        """The image ``name`` in [0, 1]."""


class FolderImages(Images):
    """The images of a folder; with a meta-info file, those that it lists.

    Args:
        folder: of image files.
        meta_info: a text file whose lines start with a file name, as BasicSR writes them.

    Raises:
        FileNotFoundError: when the folder, or a listed file, is not there.
        ValueError: when there are no images.
    """

    def __init__(self, folder: str | Path, meta_info: str | Path | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder of images at {folder}")
        if meta_info is None:
            files = find_images([self.folder])
        else:
            lines = Path(meta_info).read_text().splitlines()
            files = [self.folder / line.split(" ")[0] for line in lines if line.strip()]
            if missing := [file for file in files if not file.is_file()]:
                raise FileNotFoundError(
                    f"{meta_info} lists {len(missing)} images that {folder} does not hold, "
                    f"such as {missing[0].name}"
                )
        self.files = {file.stem: file for file in files}
        self.names = list(self.files)

    def read(self, name: str) -> Float[Tensor, "3 h w"]:
        return read_tensor(self.files[name])


class LmdbImages(Images):
    """Images in an LMDB folder as BasicSR writes it; opened anew in every worker process.

    Raises:
        FileNotFoundError: when ``meta_info.txt`` is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        listing = self.folder / "meta_info.txt"
        if not listing.is_file():
            raise FileNotFoundError(f"{folder} is no LMDB of images: it has no meta_info.txt")
        lines = [line for line in listing.read_text().splitlines() if line.strip()]
        self.names = [re.split(r" \(", line)[0].rsplit(".", 1)[0] for line in lines]

    def read(self, name: str) -> Float[Tensor, "3 h w"]:
        with _database(str(self.folder.resolve()), os.getpid()).begin() as transaction:
            content = transaction.get(name.encode("ascii"))
        if content is None:
            raise KeyError(f"{self.folder} lists {name} but does not hold it")
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
        except OSError as error:
            raise PictureError(f"{name} in {self.folder} is damaged: {error}") from error
        return _tensor(np.asarray(image)).float() / 255


class DrawnImages(Images):
    """Pictures of random gratings and rectangles, the same for every run."""

    def __init__(self, count: int = 8, side: int = 96) -> None:
        self.names = [f"drawn{i}" for i in range(count)]
        self.side = side

    def read(self, name: str) -> Float[Tensor, "3 h w"]:
        draw = torch.Generator().manual_seed(int(name.removeprefix("drawn")))
        y, x = torch.meshgrid(*[torch.arange(self.side) / self.side] * 2, indexing="ij")
        image = torch.zeros(3, self.side, self.side)
        for _ in range(6):
            fy, fx, phase = torch.rand(3, generator=draw) * 40
            color = torch.rand(3, 1, 1, generator=draw) / 6
            image += color * (1 + torch.sin(fy * y + fx * x + phase))
            top, left, height, width = (torch.rand(4, generator=draw) * self.side / 2).int()
            image[:, top : top + height, left : left + width] *= 0.7
        return image.clamp(0, 1)


def open_images(place: str | Path, meta_info: str | Path | None = None) -> Images:
    """The images of a folder or of an ``.lmdb`` folder; ``"drawn"`` needs none."""
    if str(place) == DRAWN:
        return DrawnImages()
    if Path(place).suffix == ".lmdb":
        return LmdbImages(place)
    return FolderImages(place, meta_info)


@dataclass(frozen=True, kw_only=True)
class Spoil:
    """What restoration without enlarging undoes: Gaussian noise, JPEG compression."""

    noise: float = 0.0
    """Standard deviation, in levels of 8 bit; the sum is neither rounded nor clipped."""
    jpeg: int | None = None
    """Quality from 1 to 100, as OpenCV and libjpeg count."""

    def __post_init__(self) -> None:
        require(self, "noise", self.noise >= 0, "must be at least 0")
        quality = self.jpeg is None or 1 <= self.jpeg <= 100
        require(self, "jpeg", quality, "must be None or from 1 to 100")

    def __call__(
        self, image: Float[Tensor, "c h w"], name: str | None = None
    ) -> Float[Tensor, "c h w"]:
        """The spoilt image; noise is drawn anew, or the same for the same ``name``."""
        if self.noise:
            draw = None
            if name is not None:
                draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            image = image + torch.randn(image.shape, generator=draw) * (self.noise / 255)
        return image if self.jpeg is None else _through_jpeg(image, self.jpeg)


class PairedImages(Dataset[tuple[Tensor, Tensor]]):
    """(low, high resolution) images in [0, 1], for evaluation whole and for training in patches.

    Args:
        hr: folder or LMDB of high-resolution images.
        lr: likewise of low-resolution ones; by default they are made with :func:`resize`.
        scale: how much larger ``hr`` is.
        patch: side of the low-resolution patches that are drawn at random; whole images otherwise.
        augment: flip and transpose patches at random.
        samples: length of the data set, over which the images repeat; one each by default.
        template: the LR file's name for a stem; found among ``TEMPLATES`` by default.
        meta_info: text file that lists the HR images to use.
        spoil: what is done to the low-resolution side, each time anew in training.

    Raises:
        ValueError: when the two sides don't pair up.
    """

    def __init__(
        self,
        hr: str | Path,
        lr: str | Path | None = None,
        *,
        scale: int,
        patch: int | None = None,
        augment: bool = False,
        samples: int | None = None,
        template: str | None = None,
        meta_info: str | Path | None = None,
        spoil: Spoil | None = None,
    ) -> None:
        self.spoil = spoil
        self.hr = open_images(hr, meta_info)
        self.lr = None if lr is None else open_images(lr)
        self.scale, self.patch, self.augment = scale, patch, augment
        self.samples = samples or len(self.hr.names)
        self.template = "{}"
        if self.lr is not None:
            partial = meta_info is not None
            self.template = _template(template, self.hr.names, self.lr.names, scale, partial)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.samples:
            raise IndexError(f"sample {index} of {self.samples}")
        low, high = self.pair(self.hr.names[index % len(self.hr.names)])
        if self.patch is not None:
            low, high = random_patch(low, high, self.patch, self.scale)
        if self.augment:
            number = int(torch.randint(8, ()))
            low, high = symmetry(low, number), symmetry(high, number)
        if self.spoil is not None and self.patch is not None:
            low = self.spoil(low)
        return low.contiguous(), high.contiguous()

    def pair(self, name: str) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 H W"]]:
        """Both sides of an image, the larger cut to ``scale`` times the smaller.

        Raises:
            ValueError: when their sizes don't agree, or it is smaller than the patch.
        """
        high = self.hr.read(name)
        if self.lr is None:
            high = modcrop(self._grown(high), self.scale)
            low = resize(high, Fraction(1, self.scale))
            if self.patch is None:  # evaluation sees what a file would hold
                low = quantise(low).float() / 255
        else:
            low = self.lr.read(self.template.format(name, scale=self.scale))
            sides = low.shape[1] * self.scale, low.shape[2] * self.scale
            excess = [h - s for h, s in zip(high.shape[1:], sides, strict=True)]
            if not all(0 <= e < self.scale for e in excess):
                raise ValueError(
                    f"{name}: {high.shape[1]} x {high.shape[2]} is not {self.scale} times "
                    f"{low.shape[1]} x {low.shape[2]}"
                )
            high = high[:, : sides[0], : sides[1]]
        if self.spoil is not None and self.patch is None:
            low = self.spoil(low, name)
        if self.patch is not None and min(low.shape[1:]) < self.patch:
            raise ValueError(
                f"{name}: {low.shape[1]} x {low.shape[2]} is smaller than the patch, {self.patch}"
            )
        return low, high

    def _grown(self, high: Tensor) -> Tensor:
        """At least as large as a patch, as ImageNet's smaller pictures are made to be."""
        least = (self.patch or 1) * self.scale
        height, width = high.shape[1:]
        if min(height, width) >= least:
            return high
        size = max(height, least), max(width, least)
        return F.interpolate(high[None], size, mode="bilinear", align_corners=False)[0]


def random_patch(
    low: Float[Tensor, "*batch h w"], high: Float[Tensor, "*batch H W"], patch: int, scale: int
) -> tuple[Float[Tensor, "*batch p p"], Float[Tensor, "*batch P P"]]:
    """A patch of ``low`` at a uniform position, and the same of ``high``; one place for a batch."""
    top, left = (int(torch.randint(side - patch + 1, ())) for side in low.shape[-2:])
    large = scale * patch
    return (
        low[..., top : top + patch, left : left + patch],
        high[..., top * scale : top * scale + large, left * scale : left * scale + large],
    )


def write_subimages(
    files: Iterable[Path], folder: str | Path, *, size: int = 480, step: int = 240
) -> int:
    """Overlapping squares of each image, named ``stem_s001.png``, ...; their number.

    The last square of a row or column ends at the border, as BasicSR cuts them.
    """
    count = 0
    with atomic_directory(folder) as stage:
        for file in files:
            image = read_tensor(file)
            starts = [_starts(side, size, step) for side in image.shape[1:]]
            boxes = [(y, x) for y in starts[0] for x in starts[1]]
            for number, (y, x) in enumerate(boxes, 1):
                place = stage / f"{file.stem}_s{number:03d}.png"
                write_picture(place, image[:, y : y + size, x : x + size])
            count += len(boxes)
    return count


def write_shrunk(files: Iterable[Path], folder: str | Path, scale: int) -> int:
    """Each image cut to a multiple and shrunk, as 8-bit PNG of the same stem; their number."""
    count = 0
    with atomic_directory(folder) as stage:
        for count, file in enumerate(files, 1):  # noqa: B007
            small = resize(modcrop(read_tensor(file), scale), Fraction(1, scale))
            write_picture(stage / f"{file.stem}.png", small)
    return count


def write_lmdb(files: Sequence[Path], folder: str | Path, *, compression: int = 1) -> int:
    """An LMDB of the images in BasicSR's layout; their number.

    Raises:
        ValueError: for a folder whose name does not end in ``.lmdb``.
    """
    import lmdb

    folder = Path(folder)
    if folder.suffix != ".lmdb":
        raise ValueError(f"{folder}: the folder of an LMDB ends in .lmdb")
    lines = []
    with atomic_directory(folder) as stage:
        bytes_needed = sum(file.stat().st_size for file in files)
        database = lmdb.open(str(stage), map_size=bytes_needed * 10 + (64 << 20))
        with database.begin(write=True) as transaction:
            for file in files:
                pixels = rearrange(quantise(read_tensor(file)), "c h w -> h w c").numpy()
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG", compress_level=compression)
                transaction.put(file.stem.encode("ascii"), content.getvalue())
                height, width, channels = pixels.shape
                lines.append(f"{file.stem}.png ({height},{width},{channels}) {compression}")
        database.close()
        write_text(stage / "meta_info.txt", "\n".join(lines) + "\n")
    return len(lines)


@functools.lru_cache
def _database(folder: str, process: int) -> Any:
    """LMDB allows one opening per process, and none to be carried over a fork."""
    import lmdb

    return lmdb.open(folder, readonly=True, lock=False, readahead=False, meminit=False)


def _template(
    template: str | None, high: list[str], low: list[str], scale: int, partial: bool
) -> str:
    known = set(low)
    found = [
        option
        for option in ([template] if template else TEMPLATES)
        if all(option.format(name, scale=scale) in known for name in high)
    ]
    if not found or (len(low) != len(high) and not partial):
        raise ValueError(
            f"{len(high)} high-resolution images (such as {high[0]}) do not pair with "
            f"{len(low)} low-resolution ones (such as {low[0]})"
        )
    return found[0]


def _through_jpeg(image: Float[Tensor, "c h w"], quality: int) -> Float[Tensor, "c h w"]:
    pixels = rearrange(quantise(image), "c h w -> h w c").numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
        file, "JPEG", quality=quality
    )
    decoded = np.asarray(Image.open(file))
    return _tensor(decoded.reshape(pixels.shape)).float() / 255


def _starts(side: int, size: int, step: int) -> list[int]:
    if side < size:
        return []
    starts = list(range(0, side - size + 1, step))
    return starts if starts[-1] + size == side else [*starts, side - size]


def _tensor(pixels: np.ndarray) -> UInt8[Tensor, "c h w"]:
    return torch.from_numpy(rearrange(pixels, "h w c -> c h w").copy())
