"""Pairs of degraded and clean slices with their region maps, in the authors' folders or drawn."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from image_restoration_kit.metrics import psnr, quantise, ssim
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from rat.regions import METHODS, make_regions
from rat.scans import find_scans, read_regions, read_scan, stem

DRAWN = "drawn"
"""As ``root``: slices that this module draws itself, for trials without data."""


class Sample(NamedTuple):
    """One slice."""

    degraded: Float[Tensor, "c h w"]
    clean: Float[Tensor, "c H W"]
    regions: Int[Tensor, "H W"]


class PairedSlices(Dataset[Sample]):
    """Slices in the authors' folders: ``root/{train,test}/{fd,qd,qd_seg_123456,qd_seg_123}``.

    ``fd`` holds the clean pictures (full dose), ``qd`` the degraded ones of the same names, a
    folder of maps ``.nii.gz`` of the same stem.

    Args:
        root: of the folders.
        split: ``train`` or ``test``.
        regions: the folder of maps, or a method of :func:`~rat.regions.make_regions`, which sees
            the degraded slice.
        scale: how much larger ``fd`` is.
        channels: 1 or 3.
        patch: side of the squares of the degraded slices that are drawn; whole slices by default.
        augment: turn by multiples of 90 degrees at random.
        samples: length of the data set, over which the slices repeat; one each by default.

    Raises:
        ValueError: when the folders don't pair up.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        regions: str = "qd_seg_123456",
        scale: int = 1,
        channels: int = 1,
        patch: int | None = None,
        augment: bool = False,
        samples: int | None = None,
    ) -> None:
        self.regions, self.scale, self.channels = regions, scale, channels
        self.patch, self.augment = patch, augment
        folder = Path(root) / split
        self.clean, self.degraded = (
            {stem(f): f for f in find_scans([folder / s])} for s in ("fd", "qd")
        )
        self.names = sorted(self.clean)
        self.maps: dict[str, Path] = {}
        if regions not in METHODS:
            self.maps = {stem(f): f for f in (folder / regions).glob("*") if f.is_file()}
        for kind, found in (("degraded", self.degraded), ("region map", self.maps or self.clean)):
            if missing := [name for name in self.names if name not in found]:
                raise ValueError(
                    f"{folder}: no {kind} for {len(missing)} slices, such as {missing[0]}"
                )
        self.samples = samples or len(self.names)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.samples:
            raise IndexError(f"sample {index} of {self.samples}")
        return _drawn(self.slice(self.names[index % len(self.names)]), self)

    def slice(self, name: str) -> Sample:
        """The whole slice ``name``.

        Raises:
            ValueError: when the sizes of its files don't agree.
        """
        degraded, clean = (
            _channels(read_scan(files[name]).unit[0], self.channels)
            for files in (self.degraded, self.clean)
        )
        large = [side * self.scale for side in degraded.shape[1:]]
        regions = (
            read_regions(self.maps[name])[0]
            if self.maps
            else enlarge_regions(make_regions(degraded, self.regions), self.scale)
        )
        for kind, found in (("clean", clean.shape[1:]), ("region map", regions.shape)):
            if list(found) != large:
                raise ValueError(
                    f"{name}: {kind} of {list(found)}, the degraded slice needs {large}"
                )
        return Sample(degraded, clean, regions)


class DrawnSlices(Dataset[Sample]):
    """Random ellipses, grey levels on grey levels, under Gaussian noise; the regions are known."""

    def __init__(
        self,
        count: int = 8,
        side: int = 48,
        *,
        scale: int = 1,
        channels: int = 1,
        noise: float = 0.1,
        patch: int | None = None,
        augment: bool = False,
    ) -> None:
        self.count, self.side, self.scale, self.channels = count, side, scale, channels
        self.noise, self.patch, self.augment = noise, patch, augment

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        draw = torch.Generator().manual_seed(index)
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, self.side * self.scale)] * 2, indexing="ij")
        regions = torch.zeros(y.shape, dtype=torch.int64)
        for label in range(1, 6):
            top, left, height, width = torch.rand(4, generator=draw)
            inside = ((y - top + 0.5) / (height + 0.2)) ** 2 + (
                (x - left + 0.5) / (width + 0.2)
            ) ** 2
            regions[inside < 1] = label
        levels = torch.rand(6, self.channels, generator=draw)
        clean = levels[regions].permute(2, 0, 1).contiguous()
        small = F.avg_pool2d(clean, self.scale)
        noise = self.noise * torch.randn(small.shape, generator=draw)
        return _drawn(Sample(small + noise, clean, regions), self)


def enlarge_regions(regions: Int[Tensor, "h w"], scale: int) -> Int[Tensor, "H W"]:
    """Each label ``scale`` times in both directions."""
    return regions.repeat_interleave(scale, 0).repeat_interleave(scale, 1)


def scores(out: Tensor, clean: Tensor) -> dict[str, float]:
    """PSNR and SSIM as the authors report them, on luma from 16 to 235, and plain PSNR.

    The authors read a grey PNG as colour: its luma spans 219 levels, yet the peak counts as 255.
    """
    found, truth = (quantise(image).expand(-1, 3, -1, -1) for image in (out, clean))
    return {
        "psnr": psnr(found, truth, on_luma=False),
        "psnr_y": psnr(found, truth),
        "ssim_y": ssim(found, truth),
    }


def _channels(image: Float[Tensor, "c h w"], channels: int) -> Float[Tensor, "channels h w"]:
    if len(image) == channels:
        return image
    return image.expand(channels, -1, -1) if len(image) == 1 else image.mean(0, keepdim=True)


def _drawn(sample: Sample, data: PairedSlices | DrawnSlices) -> Sample:
    """A square of the slice, turned, as ``data`` says."""
    if data.patch is not None:
        sides = sample.degraded.shape[1:]
        if min(sides) < data.patch:
            raise ValueError(f"a slice of {list(sides)} is smaller than the patch, {data.patch}")
        corner = [int(torch.randint(side - data.patch + 1, ())) for side in sides]
        square = *corner, data.patch

        def cut(x: Tensor, scale: int) -> Tensor:
            top, left, side = (value * scale for value in square)
            return x[..., top : top + side, left : left + side]

        sample = Sample(cut(sample[0], 1), cut(sample[1], data.scale), cut(sample[2], data.scale))
    if data.augment:
        turns = int(torch.randint(4, ()))
        sample = Sample(*(part.rot90(turns, (-2, -1)) for part in sample))
    return Sample(*(part.contiguous() for part in sample))
