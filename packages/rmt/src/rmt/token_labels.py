"""Token labelling, with which the paper's RMT* are trained: mixing by boxes, and the loss."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor


def draw_box(
    h: int,
    w: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "4"]:
    """Top, left, bottom and right (end excluded) of a random box on a grid of h x w tokens.

    It covers a uniformly drawn share of the grid, around a uniformly drawn token, and is cut off
    at the border.
    """
    draw = torch.rand(3, generator=generator, device=device)
    grid = torch.tensor([h, w], device=device)
    half = (grid * draw[0].sqrt()).long() // 2
    centre = torch.minimum((grid * draw[1:]).long(), grid - 1)
    return torch.cat([(centre - half).clamp_min(0), torch.minimum(centre + half, grid)])


def inside(box: Int[Tensor, "4"], h: int, w: int) -> Bool[Tensor, "h w"]:
    """The tokens of an h x w grid that lie in ``box``."""
    y, x = torch.arange(h, device=box.device), torch.arange(w, device=box.device)
    rows, columns = (y >= box[0]) & (y < box[2]), (x >= box[1]) & (x < box[3])
    return rows[:, None] & columns


def swap(x: Float[Tensor, "b h w dim"], mask: Bool[Tensor, "h w"]) -> Float[Tensor, "b h w dim"]:
    """``x`` with the positions of ``mask`` taken from the flipped batch."""
    return torch.where(mask[:, :, None], x.flip(0), x)


def token_label_loss(
    logits: Float[Tensor, "b classes"],
    token_logits: Float[Tensor, "b tokens classes"],
    box: Int[Tensor, "4"],
    targets: Float[Tensor, "..."],
    *,
    class_weight: float = 1.0,
    token_weight: float = 0.5,
    ground_truth: bool = False,
) -> Float[Tensor, ""]:
    """Soft-target cross entropy of the image and of every token, each a mean, weighted and summed.

    Args:
        logits: this and the next two are the model's `TokenLabelOutput`.
        token_logits: of every token, row by row.
        box: where the images were swapped.
        targets: [b, classes, 2 + tokens], along the last axis the true class, a soft target of the
            image, and one of every token, row by row; or [b, classes], one soft target for image
            and tokens alike.
        class_weight: of the image's part.
        token_weight: of the tokens' part.
        ground_truth: blend the true class into the image's target, by a half where both name the
            same class and by a tenth elsewhere. The published runs do not.

    Raises:
        ValueError: when the targets do not fit the logits.
    """
    tokens = token_logits.shape[1]
    fitting = [list(logits.shape), [*logits.shape, 2 + tokens]]
    if list(targets.shape) not in fitting:
        raise ValueError(
            f"targets of shape {list(targets.shape)}: needs {fitting[0]} or {fitting[1]}"
        )
    if targets.ndim == 2:
        image_target = targets
        token_targets = repeat(targets, "b classes -> b tokens classes", tokens=tokens)
    else:
        truth, image_target = targets[..., 0], targets[..., 1]
        token_targets = rearrange(targets[..., 2:], "b classes tokens -> b tokens classes")
        if ground_truth:
            agree = (truth.argmax(-1) == image_target.argmax(-1))[:, None]
            share = 0.9 - 0.4 * agree
            image_target = share * image_target + (1 - share) * truth
    swapped = (box[2] - box[0]) * (box[3] - box[1]) / tokens
    image_target = torch.lerp(image_target, image_target.flip(0), swapped.to(image_target.dtype))
    token_part = F.cross_entropy(token_logits.flatten(0, 1), token_targets.flatten(0, 1))
    return class_weight * F.cross_entropy(logits, image_target) + token_weight * token_part
