"""The same images at several sizes, from the largest to the smallest."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from image_classification_kit.training import ImageData, training_transform
from jaxtyping import Float
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from torch import Tensor


class MultiSizeData(ImageData):
    """`ImageData` whose training batches hold every image at several sizes.

    Args:
        data: a folder with ``train/CLASS/*`` and ``val/CLASS/*``, or a packaged data set.
        sizes: sides of the views, falling; validation is at the first.
        separate: augment each view on its own; else the largest is augmented, and the others are
            made of it.
        options: those of ``ImageData``, without ``size``.

    Raises:
        ValueError: for sizes that don't fall.
    """

    def __init__(
        self,
        data: str,
        *,
        sizes: Sequence[int] = (224, 160, 128),
        separate: bool = True,
        **options: Any,
    ) -> None:
        sizes = tuple(sizes)
        if not sizes or list(sizes) != sorted(set(sizes), reverse=True) or sizes[-1] < 1:
            raise ValueError(f"sizes={sizes}: must fall from the largest to the smallest")
        super().__init__(data, size=sizes[0], **options)
        self.sizes, self.separate = sizes, separate

    def train_transform(self) -> Any:
        if self.separate:
            steps = [replace(self.preprocessing, size=size) for size in self.sizes]
            return EachView([training_transform(self.augmentation, step) for step in steps])
        return SharedView(super().train_transform(), self.sizes)


class EachView:
    """A picture through each of the transforms."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> list[Float[Tensor, "c h w"]]:
        return [transform(image) for transform in self.transforms]


class SharedView:
    """One augmented view, resized (bicubic) to the others; what is erased is drawn for each."""

    def __init__(self, transform: Any, sizes: Sequence[int]) -> None:
        self.transform, self.sizes, self.erase = transform, sizes, _same
        if hasattr(transform, "transforms"):
            *steps, self.erase = transform.transforms
            self.transform = type(transform)(steps)

    def __call__(self, image: Any) -> list[Float[Tensor, "c h w"]]:
        largest = self.transform(image)[None]
        views = [
            largest.clone()
            if size == largest.shape[-1]
            else F.interpolate(largest, (size, size), mode="bicubic", antialias=True)
            for size in self.sizes
        ]
        return [self.erase(view[0]) for view in views]


def mix_views(
    mix: Mixup, views: Sequence[Float[Tensor, "b c _h _w"]], targets: Float[Tensor, "b classes"]
) -> tuple[list[Tensor], Float[Tensor, "b classes"]]:
    """Mixup or cutmix of a batch, drawn once for all its views: the box is scaled to each."""
    share, cut = mix._params_per_batch()
    if cut:
        box, share = cutmix_bbox_and_lam(
            views[0].shape, share, ratio_minmax=mix.cutmix_minmax, correct_lam=mix.correct_lam
        )
        largest = views[0].shape[-1]
        mixed = [_pasted(x, [int(side) * x.shape[-1] // largest for side in box]) for x in views]
    else:
        mixed = [share * x + (1 - share) * x.flip(0) for x in views]
    return mixed, share * targets + (1 - share) * targets.flip(0)


def _pasted(x: Float[Tensor, "b c h w"], box: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """``x`` with the flipped batch in a box."""
    top, bottom, left, right = box
    pasted = x.clone()
    pasted[..., top:bottom, left:right] = x.flip(0)[..., top:bottom, left:right]
    return pasted


def _same(x: Tensor) -> Tensor:
    return x
