"""Bags as a data set: batches, splits, and the Lightning data module's plain half."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from rrt_mil.bags import join_bags, pad_bags, read_bag
from rrt_mil.tables import Table


class Sample(NamedTuple):
    """A bag with its label."""

    features: Float[Tensor, "instances width"]
    label: int
    time: float = 0.0
    observed: bool = False


class Batch(NamedTuple):
    """Bags, padded to the longest where they differ."""

    x: Float[Tensor, "bags instances width"]
    mask: Bool[Tensor, "bags instances"] | None
    labels: Int[Tensor, "bags"]
    times: Float[Tensor, "bags"]
    observed: Bool[Tensor, "bags"]


def collate(samples: Sequence[Sample]) -> Batch:
    """A batch of samples; without mask when all bags are of one length."""
    x, mask = pad_bags([sample.features for sample in samples])
    return Batch(
        x,
        None if mask.all() else mask,
        torch.tensor([sample.label for sample in samples]),
        torch.tensor([sample.time for sample in samples], dtype=torch.float64),
        torch.tensor([sample.observed for sample in samples]),
    )


class TableBags(Dataset[Sample]):
    """The bags of a table, read from disk when asked for.

    Args:
        table: what is classified.
        width: of the features that the model takes.
        drop_invalid: leave out instances with NaN or infinity instead of refusing the bag.
        keep: hold bags in memory once they were read.
    """

    def __init__(
        self,
        table: Table,
        *,
        width: int | None = None,
        drop_invalid: bool = False,
        keep: bool = False,
    ) -> None:
        self.table, self.width, self.drop_invalid = table, width, drop_invalid
        self.kept: dict[int, Sample] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        item = self.table.items[index]
        bags = [
            read_bag(path, width=self.width, drop_invalid=self.drop_invalid) for path in item.paths
        ]
        sample = Sample(join_bags(bags, item.name).features, item.label, item.time, item.observed)
        if self.kept is not None:
            self.kept[index] = sample
        return sample


class TensorBags(Dataset[Sample]):
    """Bags of one length that are already in memory."""

    def __init__(
        self, x: Float[Tensor, "bags instances width"], labels: Int[Tensor, "bags"]
    ) -> None:
        self.x, self.labels = x, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.x[index], int(self.labels[index]))
