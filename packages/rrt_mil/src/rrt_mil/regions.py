"""How a bag becomes regions: instances in file order on a square, cut into square regions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from attention_core import cached_per_size
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

Size = Any
"""A number of instances: an integer, or a tensor of one per bag."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The square that a bag's instances fill row by row, and its regions.

    The square is padded at its end with zero instances, which take part in the attention: that is
    how the published models were trained.
    """

    regions: int = 8
    """Regions per side, unless ``region_size`` is given."""
    region_size: int | None = None
    """Side of a region; the number of regions then grows with the bag."""
    least_instances: int = 0
    """A bag with fewer becomes a single region."""
    least_fill: float = 0.0
    """A bag with more than ``instances / least_fill`` of padding becomes a single region."""

    def grid(self, instances: Size) -> tuple[Size, Size]:
        """Regions per side, and instances along the side of a region."""
        root = _ceil_sqrt(instances)
        count = self.regions if self.region_size is None else -(-root // self.region_size)
        region = -(-root // self.regions) if self.region_size is None else self.region_size
        if not self.may_be_whole:
            return count, region
        sparse = (count * region) ** 2 - instances > instances / (self.least_fill + 1e-8)
        whole = sparse | (instances < self.least_instances)
        return _where(whole, 1, count), _where(whole, root + root % 2, region)

    @property
    def may_be_whole(self) -> bool:
        """Whether some bag becomes a single region."""
        return self.least_instances > 0 or self.least_fill > 0

    def cut(
        self,
        x: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None = None,
    ) -> tuple[
        Float[Tensor, "bags regions tokens dim"],
        Bool[Tensor, "bags regions tokens"] | None,
        Callable[[Tensor], Tensor],
    ]:
        """Regions of each bag, which of their tokens exist, and the way back.

        Args:
            x: bags, padded to one length if ``mask`` is given.
            mask: true where an instance is real. Each bag is laid out by its own length, so regions
                differ in size; tokens beyond a region's own are not there for its attention.
        """
        if mask is not None:
            return self._cut_masked(x, mask)
        instances = x.shape[1]
        order, place = _tables(*self.grid(instances), x.device)
        regions = x.index_select(1, order.clamp(max=instances - 1))
        regions.index_fill_(1, place[instances:], 0)

        def join(regions: Tensor) -> Tensor:
            return regions.flatten(1, 2).index_select(1, place[:instances])

        split = "bags (regions tokens) dim -> bags regions tokens dim"
        return rearrange(regions, split, tokens=self.grid(instances)[1] ** 2), None, join

    def _cut_masked(
        self, x: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        bags, longest, dim = x.shape
        instances = mask.sum(1)[:, None, None]
        columns, region = self.grid(instances)
        windows, tokens = self._most(longest)
        window = torch.arange(windows, device=x.device)[:, None]
        token = torch.arange(tokens, device=x.device)
        row = window // columns * region + token // region
        column = window % columns * region + token % region
        exists = (token < region * region) & (window < columns * columns)
        place = row * columns * region + column  # in the bag's square
        real = rearrange(
            exists & (place < instances), "bags windows tokens -> bags (windows tokens)"
        )
        place = rearrange(
            place.clamp(max=longest - 1), "bags windows tokens -> bags (windows tokens)"
        )
        source = (~mask).to(torch.uint8).argsort(dim=1, stable=True).gather(1, place)
        regions = x.gather(1, source[..., None].expand(-1, -1, dim)) * real[..., None].to(x.dtype)

        def join(regions: Tensor) -> Tensor:
            flat = rearrange(regions, "bags windows tokens dim -> bags (windows tokens) dim")
            target = torch.where(real, source, longest)[..., None].expand(-1, -1, flat.shape[-1])
            out = flat.new_zeros(bags, longest + 1, flat.shape[-1])
            return out.scatter(1, target, flat)[:, :longest]

        split = "bags (windows tokens) dim -> bags windows tokens dim"
        # A window that a short bag doesn't have keeps one token: a softmax over none is no number.
        return rearrange(regions, split, windows=windows), exists | (token == 0), join

    def _most(self, longest: int) -> tuple[int, int]:
        """Regions and tokens per region that no bag of at most ``longest`` instances exceeds."""
        root = _ceil_sqrt(longest)
        whole = (root + root % 2) ** 2 if self.may_be_whole else 0
        count, region = Layout(regions=self.regions, region_size=self.region_size).grid(longest)
        return count**2, max(region**2, whole)


@cached_per_size
def _tables(count: int, region: int, device: torch.device) -> Int[Tensor, "2 tokens"]:
    """Which token of the square stands at each place of the regions, and the reverse."""
    tokens = torch.arange((count * region) ** 2, device=device)
    sizes = {"rows": count, "columns": count, "y": region, "x": region}
    order = rearrange(tokens, "(rows y columns x) -> (rows columns y x)", **sizes)
    place = rearrange(tokens, "(rows columns y x) -> (rows y columns x)", **sizes)
    return torch.stack([order, place])


def _ceil_sqrt(n: Size) -> Size:
    if isinstance(n, Tensor):
        return n.double().sqrt().ceil().long()
    return math.ceil(math.sqrt(n))


def _where(condition: bool | Tensor, this: Size, other: Size) -> Size:
    if isinstance(condition, Tensor):
        return torch.where(condition, this, torch.as_tensor(other, device=condition.device))
    return this if condition else other
