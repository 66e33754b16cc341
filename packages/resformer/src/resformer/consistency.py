"""Scale consistency: each size learns from the next larger one (Sec. 3.2)."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from resformer.model import View

Compare = Callable[[Float[Tensor, "b dims"], Float[Tensor, "b dims"]], Float[Tensor, ""]]


def smooth_l1(
    student: Float[Tensor, "b dims"], teacher: Float[Tensor, "b dims"]
) -> Float[Tensor, ""]:
    """Smooth L1 to the teacher after whitening: each of its vectors to mean 0 and deviation 1."""
    return F.smooth_l1_loss(student, F.layer_norm(teacher, teacher.shape[-1:], eps=1e-6))


def cosine(student: Float[Tensor, "b dims"], teacher: Float[Tensor, "b dims"]) -> Float[Tensor, ""]:
    """One minus the cosine of the angle between the two."""
    return 1 - F.cosine_similarity(student, teacher, dim=-1, eps=1e-6).mean()


CONSISTENCY: dict[str, Compare] = {"smooth-l1": smooth_l1, "l2": F.mse_loss, "cosine": cosine}
"""How a size is compared with the next larger one, by the name that configurations take."""


def multi_size_losses(
    views: Iterable[View],
    targets: Float[Tensor, "b classes"] | Iterable[Float[Tensor, "b classes"]],
    *,
    consistency: str | None = "smooth-l1",
    weight: float = 1.0,
) -> Float[Tensor, "sizes"]:
    """The loss of each size, whose mean is minimised.

    It is the cross entropy and, from the second size on, ``weight`` times the distance to the
    representation at the size before, to which no gradient flows.

    Args:
        views: of the same images, from the largest size to the smallest.
        targets: class probabilities of each image; or an iterable of them, one for each size.
        consistency: a name in ``CONSISTENCY``; ``None`` for cross entropy alone.
        weight: of the distance.

    Raises:
        ValueError: for an unknown ``consistency``.
    """
    if consistency is not None and consistency not in CONSISTENCY:
        raise ValueError(f"consistency={consistency!r}: must be one of {', '.join(CONSISTENCY)}")
    views = list(views)
    each = [targets] * len(views) if isinstance(targets, Tensor) else list(targets)
    losses, teacher = [], None
    for view, target in zip(views, each, strict=True):
        loss = F.cross_entropy(view.logits, target)
        if consistency is not None and teacher is not None:
            loss = loss + weight * CONSISTENCY[consistency](view.representation, teacher)
        losses.append(loss)
        teacher = view.representation.detach()
    return torch.stack(losses)
