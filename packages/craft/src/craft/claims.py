"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

import copy
import statistics
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from attention_core import Evidence, Run, count_parameters, growth_exponent
from jaxtyping import Float
from torch import Tensor, nn

from craft.frequency import filtered_branch, input_curve
from craft.model import CRAFT, VARIANTS, CRAFTConfig, ShiftRectangleWindowAttentionBlock

SMALL = CRAFTConfig(scale=2, depths=(1, 1), heads=(6, 6))
"""226 thousand weights: what minutes on a CPU can train."""
PRINTED = {"craft_x2": 737, "craft_x3": 744, "craft_x4": 753}
"""Thousands of weights."""
RADII = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5)
"""Of the low-pass filters, in units of the highest frequency."""


def printed_sizes(run: Run) -> Evidence:
    with torch.device("meta"):
        found = {name: count_parameters(CRAFT(VARIANTS[name])) for name in PRINTED}
    return Evidence(
        measured=", ".join(f"{name} {count:,}" for name, count in found.items()),
        holds=all(found[name] // 1000 == printed for name, printed in PRINTED.items()),
        numbers=found,
    )


def linear_cost(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    sides = (64, 128, 256)
    found = [gmacs(partial(CRAFT, VARIANTS["craft_x4"]), side) for side in sides]
    exponent = growth_exponent([side**2 for side in sides], found)
    return Evidence(
        measured=f"{found[0]:.2f} G at 64 x 64; cost grows as pixels to the power {exponent:.3f}",
        holds=abs(exponent - 1) < 0.01,
        numbers={str(side): cost for side, cost in zip(sides, found, strict=True)},
    )


@torch.no_grad()
def inert_positions(run: Run) -> Evidence:
    changes = {}
    for dim, heads in ((48, 6), (64, 8)):
        torch.manual_seed(run.seed)
        model = CRAFT(CRAFTConfig(scale=2, dim=dim, depths=(2,), heads=(heads,))).eval()
        image = torch.rand(1, 3, 32, 32)
        with_bias(model)
        before = model(image)
        for key, parameter in model.named_parameters():
            if ".positions." in key:
                nn.init.normal_(parameter)
        changes[dim] = ((model(image) - before).abs().max() / before.std()).item()
    return Evidence(
        measured=", ".join(f"{dim} channels {change:.0e}" for dim, change in changes.items()),
        holds=changes[48] < 1e-5 < 1e-4 < changes[64],
        numbers={str(dim): change for dim, change in changes.items()},
        note="largest change of the output, in units of its spread, when every weight of the "
        "position networks is drawn anew; the bias is computed even where this package leaves it "
        "out",
    )


def with_bias(model: CRAFT) -> None:
    """Compute the position bias even where it is constant."""
    for module in model.modules():
        if hasattr(module, "positioned"):
            module.positioned = True  # type: ignore[assignment]


@torch.no_grad()
def wraps(run: Run) -> Evidence:
    torch.manual_seed(run.seed)
    config = CRAFTConfig(scale=1, window=(2, 4))
    block = ShiftRectangleWindowAttentionBlock(config, 6, shifted=True).double()
    nn.init.zeros_(block.attention.local.weight)  # a convolution knows the border
    nn.init.normal_(block.attention.qkv.weight)
    x = torch.randn(1, 16, 16, config.dim, dtype=torch.float64)
    change = {
        step: (block(x.roll((step, step), (1, 2))) - block(x).roll((step, step), (1, 2)))
        .abs()
        .max()
        .item()
        for step in (1, 2, 4, 8)
    }
    return Evidence(
        measured=f"moving by a window changes {change[4]:.0e}, by less {change[1]:.0e}",
        holds=max(change[4], change[8]) < 1e-12 < 1e-3 < change[1],
        numbers={str(step): value for step, value in change.items()},
        note="a shifted block without its local convolution: nothing tells it where the border is",
    )


class PlainConvolutions(nn.Module):
    """Residual blocks of two convolutions: the other kind of network in the frequency probe."""

    def __init__(self, scale: int = 2, dim: int = 40, blocks: int = 7) -> None:
        super().__init__()
        self.scale, self.channels, self.multiple, self.reach, self.mean = scale, 3, 1, None, 0.0
        self.first = nn.Conv2d(3, dim, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.upsample = nn.Sequential(
            nn.Conv2d(dim, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c sh sw"]:
        x = self.first(image - 0.5)
        for block in self.blocks:
            x = x + block(x)
        return self.upsample(x)


def without_high(config: CRAFTConfig) -> CRAFT:
    """The network whose fusion blocks are asked by the features themselves."""
    model = CRAFT(config)
    for group in model.groups:
        for block in group.blocks:  # type: ignore[union-attr]
            block.high = nn.Identity()
    return model


NETWORKS: dict[str, Callable[[], Any]] = {
    "CRAFT": partial(CRAFT, SMALL),
    "without the high-frequency branch": partial(without_high, SMALL),
    "convolutions": PlainConvolutions,
}


def runs(run: Run, name: str) -> list[Any]:
    from image_restoration_kit.evidence import seeded_runs

    return seeded_runs(run, name, NETWORKS[name], scale=2, patch=32, lr=5e-4)


def learns(run: Run) -> Evidence:
    from image_restoration_kit.evidence import learning

    return learning(run, runs(run, "CRAFT"), "CRAFT")


def high_frequency_branch(run: Run) -> Evidence:
    from image_restoration_kit.evidence import comparison

    plain = "without the high-frequency branch"
    return comparison(("CRAFT", runs(run, "CRAFT")), {plain: runs(run, plain)})


def frequencies(run: Run) -> Evidence:
    """How much of its gain each network keeps when it sees less of the high frequencies."""
    from image_restoration_kit import quantise, resize
    from image_restoration_kit.evidence import line_plot
    from image_restoration_kit.photographs import photograph

    truth = photograph("astronaut.png")[:, 128:384, 128:384].to(run.device)
    low = quantise(resize(truth, Fraction(1, 2)))[None].float() / 255
    curves: dict[str, list[list[float]]] = {}
    for name in ("CRAFT", "convolutions"):
        models = [r.model for r in runs(run, name)]
        curves[name] = [input_curve(model, low, truth, RADII) for model in models]
    silent = copy.deepcopy(runs(run, "CRAFT")[0].model)
    for parameter in silent.network.upsample.parameters():
        nn.init.zeros_(parameter)
    bicubic = input_curve(silent, low, truth, RADII)
    branch = []
    for r in runs(run, "CRAFT"):
        network, values = r.model.network, []
        for radius in RADII:
            with filtered_branch(network, radius):
                values += input_curve(r.model, low, truth, [RADII[-1]])
        branch.append(values)
    path = run.output / "frequencies.png"
    with line_plot(path, "radius of the low-pass filter", "PSNR-Y over bicubic / dB") as axes:
        for name, each in curves.items():
            axes.plot(RADII, _gain(each, bicubic), marker="o", label=f"{name}, input filtered")
        unfiltered = [bicubic[-1]] * len(RADII)
        axes.plot(RADII, _gain(branch, unfiltered), marker="s", label="CRAFT, branch filtered")
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.legend(fontsize=7)
    half = RADII.index(0.5)
    loss = {
        name: statistics.mean(
            each[-1] - bicubic[-1] - each[half] + bicubic[half] for each in values
        )
        for name, values in curves.items()
    }
    return Evidence(
        measured="gain lost with half of the frequencies: "
        + ", ".join(f"{name} {value:.3f} dB" for name, value in loss.items()),
        holds=loss["CRAFT"] < loss["convolutions"],
        numbers={
            "radii": list(RADII), "bicubic": bicubic, "branch": branch, **curves,
        },
        figures=(path,),
        note="after the short trainings of the claim high-frequency-branch, on the centre of "
        "astronaut; networks of 226 and 205 thousand weights",
    )  # fmt: skip


def _gain(curves: list[list[float]], plain: list[float]) -> list[float]:
    means = [statistics.mean(values) for values in zip(*curves, strict=True)]
    return [mean - value for mean, value in zip(means, plain, strict=True)]
