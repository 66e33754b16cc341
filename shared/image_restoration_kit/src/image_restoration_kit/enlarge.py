"""Running a super-resolution network on images of any size: padding, tiles, self-ensemble."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from image_restoration_kit.images import Picture, to_integers
from image_restoration_kit.resize import resize

Box = tuple[slice, slice]
"""Rows and columns of a tile."""
GREY = (0.299, 0.587, 0.114)
AUTO_PIXELS = {"cpu": 256 * 256, "cuda": 512 * 512}
"""Largest input, and largest tile, that goes through the network in one piece by default."""
HALO = 32
"""Pixels that a tile sees beyond itself by default."""


@runtime_checkable
class Upscaler(Protocol):
    """What a network tells of itself; every super-resolution package's does."""

    @property
    def scale(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def multiple(self) -> int:
        """What both sides of an input are multiples of."""
        ...

    @property
    def reach(self) -> int | None:
        """How far away a pixel can matter to an output; ``None`` when anywhere in the image."""
        ...

    def __call__(self, image: Tensor) -> Tensor: ...

    def parameters(self) -> Iterable[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles of ``tile`` pixels, each seen with a ``halo`` that is cut off the result.

    The halo is there on inner sides only. Both are multiples of the network's window, so that
    windows lie as they would in the whole image.
    """

    tile: int
    halo: int = HALO

    def check(self, multiple: int) -> None:
        """Raise ``ValueError`` unless both are multiples of ``multiple``."""
        for name, value, least in (("tile", self.tile, 1), ("halo", self.halo, 0)):
            if value < least or value % multiple:
                raise ValueError(
                    f"{name}={value}: must be a multiple of the network's window, {multiple}"
                )

    def boxes(self, height: int, width: int) -> list[Box]:
        """Rows and columns of each tile."""
        rows, columns = (
            [slice(start, min(start + self.tile, side)) for start in range(0, side, self.tile)]
            for side in (height, width)
        )
        return [(row, column) for row in rows for column in columns]

    def seen(self, box: Box, height: int, width: int) -> Box:
        """Rows and columns that the network sees of a tile."""
        rows, columns = (
            slice(max(part.start - self.halo, 0), min(part.stop + self.halo, side))
            for part, side in zip(box, (height, width), strict=True)
        )
        return rows, columns


def automatic_tiling(model: Upscaler, height: int, width: int) -> Tiling | None:
    """No tiles for a small image; else tiles of which one fits a modest memory."""
    device = next(iter(model.parameters())).device.type
    limit = AUTO_PIXELS.get(device, AUTO_PIXELS["cpu"])
    if height * width <= limit:
        return None
    step = model.multiple
    halo = math.ceil(HALO / step) * step
    side = max(math.isqrt(limit) - 2 * halo, halo)
    return Tiling(tile=max(side // step, 1) * step, halo=halo)


@torch.inference_mode()
def enlarge(
    model: Upscaler,
    image: Shaped[Tensor, "b c h w"],
    *,
    tiling: Tiling | None = None,
    ensemble: bool = False,
    edge: str = "reflect",
    bits: int | None = None,
    progress: Callable[[list[Box]], Iterable[Box]] = lambda boxes: boxes,
) -> Shaped[Tensor, "b c H W"]:
    """``image`` enlarged by ``model``, for any size; the result is on the CPU.

    Args:
        model: its device is used.
        image: in [0, 1].
        tiling: cut the image so that memory does not grow with it. With a halo of at least
            ``model.reach`` the result is that of the whole image; else see :func:`seam_error`.
        ensemble: average over the eight flips and rotations of the input.
        edge: how the image is continued to a multiple of the window at the right and the bottom:
            ``"reflect"`` mirrors without repeating the edge (what the field's test code does),
            ``"symmetric"`` repeats it.
        bits: return integers of 8 or 16 bits, so that a huge result takes no more than it must.
        progress: wraps the list of tiles.

    Raises:
        TypeError: for an image of integers.
        ValueError: for an empty or non-finite image, wrong channels, or sizes that don't fit.
    """
    _check(model, image)
    scale, step = model.scale, model.multiple
    batch, _, height, width = image.shape
    device = next(iter(model.parameters())).device
    padded = pad_to_multiple(image, step, edge)
    tiling = tiling or Tiling(tile=max(padded.shape[-2:]), halo=0)
    tiling.check(step)
    dtype = {None: image.dtype, 8: torch.uint8, 16: torch.uint16}[bits]
    result = torch.empty(batch, model.channels, height * scale, width * scale, dtype=dtype)
    call = (lambda x: self_ensemble(model, x)) if ensemble else model
    for box in progress(tiling.boxes(*padded.shape[-2:])):
        rows, columns = tiling.seen(box, *padded.shape[-2:])
        out = call(padded[..., rows, columns].to(device))
        top, left = (
            (part.start - seen.start) * scale
            for part, seen in zip(box, (rows, columns), strict=True)
        )
        place = result[..., _scaled(box[0], scale), _scaled(box[1], scale)]
        out = out[..., top : top + place.shape[-2], left : left + place.shape[-1]]
        place.copy_(out if bits is None else to_integers(out, bits))
    return result


@torch.inference_mode()
def enlarge_picture(
    model: Upscaler,
    picture: Picture,
    *,
    alpha: str = "network",
    **options: Any,
) -> tuple[Shaped[Tensor, "c H W"], Shaped[Tensor, "1 H W"] | None]:
    """Colour and opacity of ``picture`` enlarged, as integers of its own bits.

    A grey picture goes through a colour network three times repeated and comes back grey.

    Args:
        model: the network.
        picture: what was read from a file.
        alpha: how opacity is enlarged: by the ``"network"`` too, or ``"bicubic"``. A network that
            does not enlarge leaves it as it is.
        options: as :func:`enlarge` takes them.

    Raises:
        ValueError: as :func:`enlarge`; also for another ``alpha``.
    """
    if alpha not in ("network", "bicubic"):
        raise ValueError(f"alpha={alpha!r}: must be 'network' or 'bicubic'")

    def run(plane: Tensor) -> Tensor:
        grey = len(plane) == 1 and model.channels == 3
        inputs = plane.expand(3, -1, -1) if grey else plane
        if not grey:
            return enlarge(model, inputs[None], bits=picture.bits, **options)[0]
        out = enlarge(model, inputs[None], **options)[0]
        weights = torch.tensor(GREY, dtype=out.dtype)[:, None, None]
        return to_integers((out * weights).sum(0, keepdim=True), picture.bits)

    color, opacity = run(picture.color), picture.alpha
    if opacity is None:
        return color, None
    if alpha == "network" and model.channels == 3 and model.scale != 1:
        return color, run(opacity)
    return color, to_integers(resize(opacity, model.scale), picture.bits)


def self_ensemble(
    model: Callable[[Tensor], Tensor], image: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c H W"]:
    """The mean over the eight symmetries of the square, each undone on the output."""
    total = model(image)
    for number in range(1, 8):
        total = total + symmetry(model(symmetry(image, number)), number, undo=True)
    return total / 8


def symmetry(
    image: Shaped[Tensor, "*batch h w"], number: int, *, undo: bool = False
) -> Shaped[Tensor, "*batch H W"]:
    """One of the eight flips and transposes: bit 0 flips columns, 1 rows, 2 transposes last."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
    if number & 4 and undo:
        image = image.mT
    image = image.flip(axes) if axes else image
    return image.mT if number & 4 and not undo else image


def pad_to_multiple(
    image: Float[Tensor, "*batch h w"], multiple: int, edge: str = "reflect"
) -> Float[Tensor, "*batch H W"]:
    """Continue the image at the right and the bottom until both sides are multiples.

    A mirror no longer than the image; what it can't fill repeats the last pixel.

    Raises:
        ValueError: for an unknown ``edge``.
    """
    if edge not in ("reflect", "symmetric"):
        raise ValueError(f"edge={edge!r}: must be 'reflect' or 'symmetric'")
    for axis in (-1, -2):
        side = image.shape[axis]
        missing = -side % multiple
        first = side - 2 if edge == "reflect" else side - 1
        mirrored = list(range(first, -1, -1))[:missing]
        if missing:
            last = mirrored[-1] if mirrored else side - 1
            index = [*range(side), *mirrored, *[last] * (missing - len(mirrored))]
            image = image.index_select(axis, torch.tensor(index, device=image.device))
    return image


@dataclass(frozen=True, kw_only=True)
class SeamError:
    """How far the tiled result lies from the whole image's, at the seam that was looked at."""

    largest: float
    """Largest difference, in [0, 1]."""
    psnr: float
    """Of the tiled result against the other, in dB; infinite when they are equal."""


@torch.inference_mode()
def seam_error(
    model: Upscaler, image: Float[Tensor, "b c h w"], tiling: Tiling
) -> SeamError | None:
    """What the tiles change, measured at the seam nearest to the middle; ``None`` without a seam.

    The reference is one run over an area of a tile's size that has the seam in its middle, so it
    takes no more memory than a tile. With a halo of at least ``model.reach`` nothing changes.
    """
    padded = pad_to_multiple(image, model.multiple)
    sides = padded.shape[-2:]
    axis = max((0, 1), key=lambda a: sides[a])
    if sides[axis] <= tiling.tile:
        return None
    exact = model.reach is not None and tiling.halo >= model.reach
    if exact:
        return SeamError(largest=0.0, psnr=math.inf)
    seam = max(round(sides[axis] / 2 / tiling.tile), 1) * tiling.tile
    seam = min(seam, (sides[axis] - 1) // tiling.tile * tiling.tile)
    half = tiling.tile // 2 // model.multiple * model.multiple + tiling.halo
    other = slice(0, min(sides[1 - axis], tiling.tile + 2 * tiling.halo))

    def run(start: int, stop: int) -> Tensor:
        area = padded.narrow(2 + axis, start, stop - start)
        area = area.narrow(3 - axis, other.start, other.stop)
        return model(area.to(next(iter(model.parameters())).device)).cpu()

    start, stop = max(seam - half, 0), min(seam + half, sides[axis])
    whole = run(start, stop)
    first = run(max(seam - tiling.tile - tiling.halo, 0), min(seam + tiling.halo, sides[axis]))
    second = run(max(seam - tiling.halo, 0), min(seam + tiling.tile + tiling.halo, sides[axis]))
    scale, strip = model.scale, min(model.multiple, seam - start, stop - seam)
    edge_first = (seam - max(seam - tiling.tile - tiling.halo, 0)) * scale
    edge_second = (seam - max(seam - tiling.halo, 0)) * scale
    tiled = torch.cat(
        [
            first.narrow(2 + axis, edge_first - strip * scale, strip * scale),
            second.narrow(2 + axis, edge_second, strip * scale),
        ],
        2 + axis,
    )
    expected = whole.narrow(2 + axis, (seam - start - strip) * scale, 2 * strip * scale)
    error = (tiled - expected).double()
    mean = error.square().mean().item()
    return SeamError(
        largest=error.abs().max().item(), psnr=-10 * math.log10(mean) if mean else math.inf
    )


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _check(model: Upscaler, image: Tensor) -> None:
    if not image.is_floating_point():
        raise TypeError(f"expects floating point in [0, 1], got {image.dtype}")
    if not image.numel():
        raise ValueError(f"an empty image: {list(image.shape)}")
    if image.shape[1] != model.channels:
        raise ValueError(
            f"the image has {image.shape[1]} channels, the network takes {model.channels}"
        )
    if not image.isfinite().all():
        raise ValueError("the image holds NaN or infinite values")
    if image.max() > 1.5:
        warnings.warn(
            f"the image reaches {image.max():.3g}, but [0, 1] is expected: divide 8-bit values "
            "by 255",
            stacklevel=3,
        )
