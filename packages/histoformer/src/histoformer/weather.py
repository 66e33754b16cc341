"""Weather put on photographs: rain, snow, haze and drops on the lens, for tests and trials.

Models of how each degrades an image, with everything drawn at random; images are in [0, 1].
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

Photo = Float[Tensor, "3 h w"]


def haze(image: Photo, draw: Generator | None = None) -> Photo:
    """Airlight in place of what the distance swallows: J t + A (1 - t), t = exp(-beta d).

    Distance grows towards the top of the image and varies smoothly.
    """
    height, width = image.shape[1:]
    far = torch.linspace(1, 0.2, height)[:, None] + 0.4 * (_smooth(height, width, draw) - 0.5)
    transmission = torch.exp(-_between(0.4, 1.4, draw) * far.clamp_min(0))
    airlight = _between(0.7, 0.95, draw)
    return image * transmission + airlight * (1 - transmission)


def rain(image: Photo, draw: Generator | None = None) -> Photo:
    """Bright streaks of one slant, long and short, over a veil of haze (Outdoor-Rain's model)."""
    height, width = image.shape[1:]
    slant, streaks = _between(-0.5, 0.5, draw), torch.zeros(height, width)
    for length in (7, 15, 25):
        drops = (torch.rand(height, width, generator=draw) > 1 - 0.25 / length).float()
        drops = drops * torch.rand(height, width, generator=draw)
        streaks = torch.maximum(streaks, _filter(drops, _line(length, slant)) * length)
    veiled = haze(image, draw)
    return _screen(veiled, _between(0.5, 0.9, draw) * streaks.clamp(0, 1))


def snow(image: Photo, draw: Generator | None = None) -> Photo:
    """Flakes of many sizes, near ones large, soft and few (Snow100K's model)."""
    height, width = image.shape[1:]
    flakes = torch.zeros(height, width)
    for radius, share in ((1, 0.006), (2, 0.002), (4, 0.0005)):
        seeds = (torch.rand(height, width, generator=draw) < share).float()
        flakes = torch.maximum(flakes, _filter(seeds, _disc(radius * _between(0.8, 1.4, draw))))
    return _screen(image, _between(0.7, 1.0, draw) * flakes.clamp(0, 1))


def raindrops(image: Photo, draw: Generator | None = None) -> Photo:
    """Drops on the lens, each a small blurred picture of what lies around, upside down."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    source, mask = torch.stack([x, y], -1).float(), torch.zeros(height, width)
    for _ in range(max(2, height * width // 800)):
        top, left = (side * torch.rand((), generator=draw).item() for side in (height, width))
        radius = _between(3, 9, draw)
        inside = 1 - ((x - left) ** 2 + (y - top) ** 2).sqrt() / radius
        bent = torch.stack([left - 3 * (x - left), top - 3 * (y - top)], -1)
        source = torch.where(inside[..., None] > 0, bent, source)
        mask = torch.maximum(mask, (2 * inside).clamp(0, 1))
    sides = torch.tensor([width, height])
    grid = (2 * source + 1) / sides - 1
    seen = F.grid_sample(image[None], grid[None], padding_mode="reflection", align_corners=False)
    soft = F.avg_pool2d(F.pad(seen, (1,) * 4, "replicate"), 3, 1)[0]
    return torch.lerp(image, (1.1 * soft).clamp(0, 1), mask)


WEATHER: dict[str, Callable[..., Tensor]] = {
    "rain": rain,
    "snow": snow,
    "haze": haze,
    "raindrops": raindrops,
}


def _screen(image: Photo, light: Float[Tensor, "h w"]) -> Photo:
    return 1 - (1 - image) * (1 - light)


def _between(low: float, high: float, draw: Generator | None) -> float:
    return low + (high - low) * torch.rand((), generator=draw).item()


def _smooth(height: int, width: int, draw: Generator | None) -> Float[Tensor, "h w"]:
    coarse = torch.rand(1, 1, 4, 4, generator=draw)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0, 0]


def _line(length: int, slant: float) -> Float[Tensor, "k k"]:
    """A line of unit mass, ``slant`` to the side for one down."""
    offset = torch.arange(length) - length // 2
    y, x = offset[:, None].float(), offset[None, :].float()
    line = (1 - (x - slant * y).abs() / math.hypot(1, slant)).clamp_min(0)
    return line / line.sum()


def _disc(radius: float) -> Float[Tensor, "k k"]:
    """A soft disc of unit height."""
    offset = torch.arange(-math.ceil(radius), math.ceil(radius) + 1)
    distance = (offset[:, None] ** 2 + offset[None, :] ** 2).sqrt()
    return (1.3 - distance / radius).clamp(0, 1)


def _filter(image: Float[Tensor, "h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "h w"]:
    return F.conv2d(image[None, None], kernel[None, None], padding=len(kernel) // 2)[0, 0]
