"""UHDRR4K and UHDRR8K as published, and reflections put on photographs (needs ``[images]``)."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from image_restoration_kit.data import Images, open_images
from image_restoration_kit.images import read_tensor
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

SIZES, PHASES = ("4k", "8k"), ("train", "test")
BLUR_SIDE = 11
OVERFLOW = 1.3
"""What the excess over white is multiplied by before it comes off the reflection."""


@dataclass(frozen=True)
class Pair:
    """The files of one photograph through glass."""

    name: str
    blended: Path
    transmission: Path


def uhdrr_pairs(root: str | Path, size: str = "4k", phase: str = "train") -> list[Pair]:
    """The pairs that the published lists name; of the 8K test set its quarters where they are cut.

    Args:
        root: holds ``4k`` and ``8k``.
        size: ``4k`` or ``8k``.
        phase: ``train`` or ``test``.

    Raises:
        ValueError: for another size or phase, or a list that is none.
        FileNotFoundError: when the list, or an image that it names, is not there.
    """
    for field, value, known in (("size", size, SIZES), ("phase", phase, PHASES)):
        if value not in known:
            raise ValueError(f"{field}={value!r}: must be one of {', '.join(known)}")
    folder = Path(root) / size / phase
    listing = f"{size}_{phase}_results_list.json"
    if (cropped := folder / "cropped").is_dir():
        folder, listing = cropped, f"{size}_{phase}_crop_results_list.json"
    places = [folder / listing, folder.parent / listing, Path(root) / size / listing]
    places.append(Path(root) / listing)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no {listing} in {folder} or above: the list of UHDRR's images")
    try:
        entries = json.loads(found.read_text())
        names = [(Path(e["blended"]).name, Path(e["transmission_layer"]).name) for e in entries]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{found}: must be a list of objects with blended and transmission_layer ({error!r})"
        ) from error
    pairs = [
        Pair(Path(b).stem, folder / "blended" / b, folder / "transmission_layer" / t)
        for b, t in names
    ]
    missing = [f for pair in pairs for f in (pair.blended, pair.transmission) if not f.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{found} lists {len(missing)} missing images, such as {missing[0]}"
        )
    return pairs


class UHDRR(Dataset[tuple[Tensor, Tensor]]):
    """Blended photographs and their transmissions in [0, 1]; crops at the same place of both.

    Args:
        pairs: from :func:`uhdrr_pairs`.
        crop: side of random crops, or ``None`` for whole images.
    """

    def __init__(self, pairs: Sequence[Pair], crop: int | None = None) -> None:
        self.pairs, self.crop = pairs, crop

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        blended, transmission = read_tensor(pair.blended), read_tensor(pair.transmission)
        if blended.shape != transmission.shape:
            raise ValueError(
                f"{pair.blended} is {list(blended.shape)} but {pair.transmission} "
                f"{list(transmission.shape)}: a pair has one size"
            )
        if self.crop is None:
            return blended, transmission
        both = crop(torch.stack([blended, transmission]), self.crop, pair.name)
        return both[0], both[1]


class Reflections(Dataset[tuple[Tensor, Tensor]]):
    """Photographs with another one reflected in the glass before them, anew in each epoch.

    Args:
        images: photographs; every two different ones can meet.
        crop: side of the crops.
        samples: pairs per epoch; one per photograph by default.
        fixed: whether a sample is the same in every epoch.

    Raises:
        ValueError: for fewer than two photographs.
    """

    def __init__(
        self,
        images: Images | str | Path,
        crop: int,
        samples: int | None = None,
        *,
        fixed: bool = False,
    ) -> None:
        self.images = images if isinstance(images, Images) else open_images(images)
        if len(self.images.names) < 2:
            raise ValueError(
                f"{len(self.images.names)} photographs: a reflection needs another one"
            )
        self.crop, self.samples, self.fixed = crop, samples or len(self.images.names), fixed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.fixed:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(index)
                state = random.getstate()
                random.seed(index)
                try:
                    return self._draw(index)
                finally:
                    random.setstate(state)
        return self._draw(index)

    def _draw(self, index: int) -> tuple[Tensor, Tensor]:
        names = self.images.names
        name = names[index % len(names)]
        other = random.choice([n for n in names if n != name])
        transmission, reflection = (crop(self.images.read(n), self.crop, n) for n in (name, other))
        return blend(transmission, reflection, random.uniform(2, 5)), transmission


def blend(
    transmission: Float[Tensor, "3 h w"], reflection: Float[Tensor, "3 h w"], sigma: float
) -> Float[Tensor, "3 h w"]:
    """A photograph through glass that reflects another one out of focus (CEILNet's model).

    The reflection is blurred; where the sum exceeds white, 1.3 times the mean excess comes off it.

    Args:
        transmission: behind the glass, in [0, 1].
        reflection: before it.
        sigma: of the blur, in pixels.
    """
    blurred = blur(reflection, sigma)
    total = transmission + blurred
    over = total[total > 1]
    if len(over):
        blurred = (blurred - (over.mean() - 1) * OVERFLOW).clamp(0, 1)
        total = transmission + blurred
    return total.clamp(0, 1)


def blur(image: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    """A Gaussian of 11 x 11 pixels; the border is mirrored."""
    offset = torch.arange(BLUR_SIDE, dtype=image.dtype) - BLUR_SIDE // 2
    weights = torch.exp(-(offset**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    padded = F.pad(image[:, None], (BLUR_SIDE // 2,) * 4, mode="reflect")
    along = F.conv2d(padded, weights[None, None, None])
    return F.conv2d(along, weights[None, None, :, None])[:, 0]


def crop(image: Float[Tensor, "*batch h w"], side: int, name: str) -> Float[Tensor, "*batch s s"]:
    """A random square.

    Raises:
        ValueError: when ``image`` is smaller.
    """
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"{name} is {height} x {width}, smaller than crops of {side}")
    top, left = random.randint(0, height - side), random.randint(0, width - side)
    return image[..., top : top + side, left : left + side]
