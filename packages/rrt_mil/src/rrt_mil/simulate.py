"""Bags made of real digits or simulated symbols, whose label asks for content or for context."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from rrt_mil.attention import CrossRegionAttention

DIGITS_TRAIN = 1200
"""Of scikit-learn's 1,797 scans, how many make the training bags."""


OTHERS = (0, 1, 2, 4, 6, 7, 8, 9)
"""Symbols that fill a bag whose label is about 3s and 5s."""


@dataclass(frozen=True)
class Pool:
    """Instances to fill bags with, and which of ten symbols each shows."""

    features: Float[Tensor, "instances width"]
    symbols: Int[Tensor, "instances"]

    def draw(
        self, symbols: Sequence[int], count: int, generator: torch.Generator
    ) -> Float[Tensor, "count width"]:
        """``count`` instances of the given symbols."""
        among = torch.isin(self.symbols, torch.tensor(symbols)).nonzero().flatten()
        return self.features[among[torch.randint(len(among), (count,), generator=generator)]]


def digit_pools(seed: int = 0) -> tuple[Pool, Pool]:
    """Scikit-learn's digits through a frozen random layer: for training bags, and for test bags.

    The random layer stands for the extractor that was never trained for the task.
    """
    from sklearn.datasets import load_digits

    scans, symbols = (torch.tensor(a) for a in load_digits(return_X_y=True))
    scans = scans.float()
    scans = (scans - scans.mean(0)) / (scans.std(0) + 1e-6)
    generator = torch.Generator().manual_seed(seed)
    layer = torch.randn(64, 64, generator=generator) / 8
    features = F.relu(scans @ layer)
    order = torch.randperm(len(scans), generator=generator)
    train, test = order[:DIGITS_TRAIN], order[DIGITS_TRAIN:]
    return Pool(features[train], symbols[train]), Pool(features[test], symbols[test])


def symbol_pool(width: int = 32, each: int = 100, noise: float = 0.3, seed: int = 0) -> Pool:
    """Ten random directions with noise; needs no other library."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.arange(10).repeat_interleave(each)
    directions = torch.randn(10, width, generator=generator)
    spread = torch.randn(len(symbols), width, generator=generator)
    return Pool(directions[symbols] + noise * spread, symbols)


Bags = tuple[Float[Tensor, "bags instances width"], Int[Tensor, "bags"]]


def content_bags(pool: Pool, count: int, instances: int = 100, seed: int = 0) -> Bags:
    """Positive bags hold five 9s, negative ones none: the instances alone tell."""
    generator = torch.Generator().manual_seed(seed)
    bags, labels = [], torch.arange(count) % 2
    for label in labels.tolist():
        bag = pool.draw(range(9), instances, generator)
        if label:
            where = torch.randperm(instances, generator=generator)[:5]
            bag[where] = pool.draw([9], 5, generator)
        bags.append(bag)
    return torch.stack(bags), labels


def context_bags(pool: Pool, count: int, instances: int = 100, seed: int = 0) -> Bags:
    """All bags hold five 3s at even and five 5s at odd places: only their order tells.

    In positive bags each 5 directly follows a 3; in negative ones they stand in different pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    bags, labels = [], torch.arange(count) % 2
    for label in labels.tolist():
        bag = pool.draw(OTHERS, instances, generator)
        pairs = torch.randperm(instances // 2, generator=generator)[:10]
        threes, fives = (pairs[:5], pairs[:5]) if label else (pairs[:5], pairs[5:])
        bag[2 * threes] = pool.draw([3], 5, generator)
        bag[2 * fives + 1] = pool.draw([5], 5, generator)
        bags.append(bag)
    return torch.stack(bags), labels


def order_bags(pool: Pool, count: int, instances: int = 100, seed: int = 0) -> Bags:
    """All bags hold five pairs of a 3 and a 5: in positive ones the 3 comes first."""
    generator = torch.Generator().manual_seed(seed)
    bags, labels = [], torch.arange(count) % 2
    for label in labels.tolist():
        bag = pool.draw(OTHERS, instances, generator)
        first = 2 * torch.randperm(instances // 2, generator=generator)[:5]
        bag[first + 1 - label] = pool.draw([3], 5, generator)
        bag[first + label] = pool.draw([5], 5, generator)
        bags.append(bag)
    return torch.stack(bags), labels


def company_bags(pool: Pool, count: int, instances: int = 100, seed: int = 0) -> Bags:
    """Positive bags hold 3s and 5s, negative ones only one of them, never two in one region.

    No sum over instances, or over regions, tells: they must know what else the bag holds.
    """
    generator = torch.Generator().manual_seed(seed)
    (regions, _, _) = CrossRegionAttention.LAYOUT.cut(
        torch.arange(1.0, instances + 1)[None, :, None]
    )
    first = regions[0, :, 0, 0].long() - 1  # an instance of each region, in no other one
    first = first[first >= 0]
    bags, labels = [], torch.arange(count) % 2
    for index, label in enumerate(labels.tolist()):
        bag = pool.draw(OTHERS, instances, generator)
        places = first[torch.randperm(len(first), generator=generator)[:10]]
        kinds = ([3], [5]) if label else ([3], [3]) if index % 4 == 0 else ([5], [5])
        bag[places[:5]] = pool.draw(kinds[0], 5, generator)
        bag[places[5:]] = pool.draw(kinds[1], 5, generator)
        bags.append(bag)
    return torch.stack(bags), labels


TASKS = {
    "content": content_bags,
    "context": context_bags,
    "order": order_bags,
    "company": company_bags,
}


TILE, WINDOW = 8, 12
"""Pixels along a tile, and tiles along a bag's window."""


def tissue_tiles(seed: int = 0) -> tuple[Float[Tensor, "y x width"], Float[Tensor, "y x"]]:
    """A grid of tiles of a stained section (scikit-image's): features, and how much DAB each holds.

    The features are a frozen random layer of the tile's pixels.
    """
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    picture = immunohistochemistry()
    stain = torch.tensor(rgb2hed(picture)[..., 2].copy()).float()
    pixels = torch.tensor(picture).float() / 255
    split = "(y ty) (x tx) colour -> y x (ty tx colour)"
    tiles = rearrange(pixels - pixels.mean((0, 1)), split, ty=TILE, tx=TILE)
    generator = torch.Generator().manual_seed(seed)
    layer = torch.randn(tiles.shape[-1], 64, generator=generator) / TILE
    density = rearrange(stain, "(y ty) (x tx) -> y x (ty tx)", ty=TILE, tx=TILE).mean(-1)
    return F.relu(tiles @ layer), density


def tissue_bags(task: str, part: str, count: int, seed: int = 0) -> Bags:
    """Windows of tissue: the left 60 % of the section to train, the rest to test.

    Args:
        task: ``density``: does the window hold more stain than most of its part. ``intact``: do its
            tiles stand as in the tissue, or shuffled.
        part: ``train`` or ``test``.
        count: windows.
        seed: of the draw.
    """
    features, density = tissue_tiles()
    border = int(0.6 * features.shape[1])
    columns = slice(0, border) if part == "train" else slice(border, None)
    features, density = features[:, columns], density[:, columns]
    generator = torch.Generator().manual_seed(seed)
    rows, places = features.shape[0] - WINDOW + 1, features.shape[1] - WINDOW + 1
    bags, stains = [], []
    for _ in range(count):
        y = int(torch.randint(rows, (), generator=generator))
        x = int(torch.randint(places, (), generator=generator))
        bags.append(features[y : y + WINDOW, x : x + WINDOW].flatten(0, 1))
        stains.append(density[y : y + WINDOW, x : x + WINDOW].mean())
    if task == "density":
        amounts = torch.stack(stains)
        return torch.stack(bags), (amounts > amounts.median()).long()
    labels = torch.arange(count) % 2
    for index in (labels == 0).nonzero().flatten().tolist():
        bags[index] = bags[index][torch.randperm(WINDOW**2, generator=generator)]
    return torch.stack(bags), labels
