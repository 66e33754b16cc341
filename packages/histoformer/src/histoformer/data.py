"""Pairs of degraded and clean images in the folders of the field, and weather made on the fly."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from attention_core.training import DataModule
from image_restoration_kit.data import FolderImages, Images, open_images, random_patch
from image_restoration_kit.enlarge import symmetry
from image_restoration_kit.metrics import quantise
from image_restoration_kit.photographs import TRAINING, photograph
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from histoformer.weather import WEATHER

SYNTHETIC = "synthetic"
"""As ``inputs``: weather put on the clean images."""
PHOTOGRAPHS = "photographs"
"""As ``truths``: those that scikit-image ships."""
NAMES = ((r"$", ""), (r"_rain$", "_clean"), (r"_s\d+_a\d+$", ""))
"""From a degraded file's stem to its clean one's: alike, RainDrop's, Outdoor-Rain's."""

Pair = tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]


class Photographs(Images):
    """Photographs of scikit-image, by default the kit's training ones."""

    def __init__(self, names: Sequence[str] = TRAINING) -> None:
        self.names = list(names)

    def read(self, name: str) -> Float[Tensor, "3 h w"]:
        return photograph(name)


class WeatherPairs(Dataset[tuple[Tensor, Tensor]]):
    """(degraded, clean) images in [0, 1]; in training patches, which are flipped and transposed.

    Args:
        truths: folder of clean images, ``"photographs"``, or ``"drawn"``.
        inputs: folder of degraded ones, named alike or as in RainDrop and Outdoor-Rain; or
            ``"synthetic"``.
        patch: side of patches drawn at random; whole images otherwise. Smaller images are mirrored.
        samples: length of the data set, over which the images repeat; one each by default.
        kinds: of synthetic weather.

    Raises:
        ValueError: when an image has no clean one, or the sides of a pair differ.
    """

    def __init__(
        self,
        truths: str | Path | Images,
        inputs: str | Path = SYNTHETIC,
        *,
        patch: int | None = None,
        samples: int | None = None,
        kinds: Sequence[str] = tuple(WEATHER),
    ) -> None:
        if unknown := sorted(set(kinds) - set(WEATHER)) or not kinds:
            raise ValueError(f"kinds={unknown or kinds}: weather is {', '.join(WEATHER)}")
        self.patch, self.kinds = patch, list(kinds)
        if not isinstance(truths, Images):
            truths = Photographs() if str(truths) == PHOTOGRAPHS else open_images(truths)
        self.truths, self.inputs = truths, None
        self.pairs = [(name, name) for name in truths.names]
        if str(inputs) != SYNTHETIC:
            self.inputs = FolderImages(inputs)
            self.pairs = [(name, truth_of(name, truths.names)) for name in self.inputs.names]
        self.samples = samples or len(self.pairs)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self.samples:
            raise IndexError(f"sample {index} of {self.samples}")
        low, high = self.read(index % len(self.pairs))
        if self.patch is None:
            return low, high
        number = int(torch.randint(8, ()))
        return symmetry(low, number).contiguous(), symmetry(high, number).contiguous()

    def read(self, index: int) -> Pair:
        """Both sides of a pair, or a patch of them."""
        given, clean = self.pairs[index]
        high = self.truths.read(clean)
        if self.inputs is None:
            (high,) = self._cut(high)
            return self._degraded(high, clean), high
        low = self.inputs.read(given)
        if low.shape != high.shape:
            raise ValueError(
                f"{given} has {low.shape[1]} x {low.shape[2]} pixels, its clean image "
                f"{clean} {high.shape[1]} x {high.shape[2]}"
            )
        low, high = self._cut(low, high)
        return low, high

    def _degraded(self, high: Tensor, name: str) -> Tensor:
        """Drawn anew in training; the same for the same name, and 8 bit, in evaluation."""
        if self.patch is not None:
            kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
            return WEATHER[kind](high).clamp(0, 1)
        seed = zlib.crc32(name.encode())
        low = WEATHER[self.kinds[seed % len(self.kinds)]](high, torch.Generator().manual_seed(seed))
        return quantise(low).float() / 255

    def _cut(self, *images: Tensor) -> list[Tensor]:
        if self.patch is None:
            return list(images)
        both = _at_least(torch.cat(images), self.patch)
        return list(random_patch(both, both, self.patch, 1)[0].split(3))


class WeatherData(DataModule):
    """Patches for training and whole images for evaluation; places as ``WeatherPairs`` takes them.

    Args:
        truths: clean training images.
        inputs: degraded ones.
        patch: side of the patches.
        batch_size: patches per process and step.
        samples: patches in an epoch over all processes; one per image by default.
        kinds: of synthetic weather.
        val_truths: clean validation images; none by default.
        val_inputs: degraded ones.
        test_truths: test images; the validation's by default.
        test_inputs: degraded ones.
        workers: processes that load data.
    """

    def __init__(
        self,
        truths: str,
        inputs: str = SYNTHETIC,
        *,
        patch: int = 128,
        batch_size: int = 8,
        samples: int | None = None,
        kinds: Sequence[str] = tuple(WEATHER),
        val_truths: str | None = None,
        val_inputs: str = SYNTHETIC,
        test_truths: str | None = None,
        test_inputs: str = SYNTHETIC,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.training, self.batch_size, self.workers = (truths, inputs), batch_size, workers
        self.patch, self.samples, self.kinds = patch, samples, kinds
        self.validation = (val_truths, val_inputs)
        self.test = (test_truths, test_inputs) if test_truths else self.validation

    def train_dataloader(self) -> DataLoader:
        dataset = WeatherPairs(
            *self.training, patch=self.patch, samples=self.samples, kinds=self.kinds
        )
        return self.shuffled(dataset, self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self._whole(*self.validation) if self.validation[0] else []

    def test_dataloader(self) -> DataLoader:
        if not self.test[0]:
            raise ValueError("no test images: set --data.test_truths")
        return self._whole(*self.test)

    def _whole(self, truths: str | None, inputs: str) -> DataLoader:
        return self.in_order(WeatherPairs(str(truths), inputs, kinds=self.kinds))


def truth_of(name: str, truths: Sequence[str]) -> str:
    """The clean image of a degraded one, by the namings of the field.

    Raises:
        ValueError: when there is none.
    """
    for pattern, replacement in NAMES:
        clean = re.sub(pattern, replacement, name)
        if clean in truths:
            return clean
    raise ValueError(f"{name} has no clean image among {len(truths)} (such as {truths[0]})")


def _at_least(image: Tensor, side: int) -> Tensor:
    """Mirrored at the right and the bottom, as often as it takes."""
    for axis in (1, 2):
        length = image.shape[axis]
        index = torch.arange(max(length, side)).remainder(2 * length)
        image = image.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return image
