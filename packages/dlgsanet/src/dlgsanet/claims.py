"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from attention_core import Evidence, Run, count_parameters, growth_exponent
from torch import Tensor

from dlgsanet.dynamic import dynamic_convolution, reference
from dlgsanet.model import VARIANTS, DLGSANet, DLGSANetConfig, GlobalAttention

SMALL = DLGSANetConfig(scale=2, groups=2, blocks=1, window=96)
"""A seventh of a million weights: what minutes on a CPU can train."""
COUNTED = {"dlgsanet_tiny_x4": 32.02, "dlgsanet_light_x4": 42.51, "dlgsanet_x4": 274.3}
"""Variant -> G multiply-adds for an output of 1280 x 720, by the authors' own counter."""
PARTS: dict[str, Callable[[], DLGSANet]] = {
    "sparse": lambda: DLGSANet(SMALL),
    "softmax": lambda: DLGSANet(replace(SMALL, activation="softmax")),
    "static kernels": lambda: DLGSANet(replace(SMALL, dynamic=False)),
}


def dynamic_gmacs(config: DLGSANetConfig, pixels: int) -> float:
    """Multiply-adds of the dynamic convolutions, which torch's counter does not see, in G."""
    layers = config.groups * config.blocks
    return layers * config.kernel**2 * config.dim * pixels / 1e9


def counted_cost(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    side, found = 240, {}  # as many pixels as 320 x 180
    for name in COUNTED:
        config = replace(VARIANTS[name], window=None)
        found[name] = gmacs(partial(DLGSANet, config), side) + dynamic_gmacs(config, side**2)
    ratios = [found[name] / counted for name, counted in COUNTED.items()]
    return Evidence(
        measured=", ".join(f"{name} {cost:.1f} G" for name, cost in found.items()),
        holds=all(abs(ratio - 1) < 0.1 for ratio in ratios),
        numbers=found,
        note=f"{min(ratios):.2f} to {max(ratios):.2f} times the authors' count; holds means within "
        "10 %: the counters differ in what they leave out",
    )


def light(run: Run) -> Evidence:
    with torch.device("meta"):
        count = count_parameters(DLGSANet(VARIANTS["dlgsanet_x4"]))
    return Evidence(
        measured=f"{count / 1e6:.2f}M, {count / 11.9e6:.0%} of SwinIR's 11.9M",
        holds=abs(count / 1e6 - 4.76) < 0.01,
        numbers={"parameters": count},
        note="SwinIR x4 as its authors print it",
    )


@torch.no_grad()
def sparsity(run: Run) -> Evidence:
    from image_restoration_kit.photographs import photograph

    torch.manual_seed(run.seed)
    model = DLGSANet(VARIANTS["dlgsanet_tiny_x4"]).eval().to(run.device)
    shares: list[float] = []

    def look(module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
        qkv = module.around(module.qkv(given[0]).movedim(-1, 1)).movedim(1, -1)
        query, key, _ = qkv.flatten(1, 2).chunk(3, -1)
        shares.append(module.weights(query, key).eq(0).double().mean().item())

    for module in model.modules():
        if isinstance(module, GlobalAttention):
            module.register_forward_hook(look)
    model(photograph("astronaut.png")[None, :, 96:144, 200:248].to(run.device))
    mean = sum(shares) / len(shares)
    return Evidence(
        measured=f"{mean:.0%} of the weights are zero ({min(shares):.0%} to {max(shares):.0%})",
        holds=0.2 < mean < 0.8,
        numbers={"shares": shares},
        note="random weights on a photograph; softmax would have no zero at all",
    )


@torch.no_grad()
def operator(run: Run) -> Evidence:
    """Time and agreement of the operator with unfolding, over image sizes."""
    from image_restoration_kit.evidence import line_plot

    torch.manual_seed(run.seed)
    sides, rounds = ((32, 64, 128, 256), 5) if run.full else ((32, 64, 96), 3)
    times: dict[str, list[float]] = {"passes": [], "unfolded": []}
    worst = 0.0
    for side in run.progress(sides, "image sides"):
        image = torch.randn(1, 48, side, side, device=run.device)
        kernels = torch.randn(1, 8, 49, side, side, device=run.device)
        expected = reference(image, kernels)
        worst = max(worst, (dynamic_convolution(image, kernels) - expected).abs().max().item())
        for name, call in (("passes", dynamic_convolution), ("unfolded", reference)):
            best = float("inf")
            for _ in range(rounds):
                start = time.perf_counter()
                call(image, kernels)
                best = min(best, time.perf_counter() - start)
            times[name].append(1e3 * best)
    path = run.output / "operator.png"
    with line_plot(path, "image side / pixels", "time / ms") as axes:
        for name, values in times.items():
            axes.loglog(sides, values, marker="o", label=name)
        axes.legend()
    ratio = times["unfolded"][-1] / times["passes"][-1]
    growth = growth_exponent([side**2 for side in sides], times["passes"])
    return Evidence(
        measured=f"{ratio:.1f} times as fast as unfolding at {sides[-1]} pixels, "
        f"equal to {worst:.0e}; time grows as pixels to the power {growth:.2f}",
        holds=ratio > 1.5 and worst < 1e-3,
        numbers={"sides": list(sides), "milliseconds": times, "growth": growth},
        figures=(path,),
        note=f"48 channels, 8 groups, kernels of 7 x 7; {torch.get_num_threads()} threads",
    )  # fmt: skip


def runs(run: Run, name: str) -> Any:
    from image_restoration_kit.evidence import seeded_runs

    return seeded_runs(run, name, PARTS[name], scale=SMALL.scale)


def learns(run: Run) -> Evidence:
    from image_restoration_kit.evidence import learning

    return learning(run, runs(run, "sparse"), "DLGSANet")


def ablation(run: Run) -> Evidence:
    from image_restoration_kit.evidence import comparison

    found = {name: runs(run, name) for name in PARTS}
    return comparison(("sparse", found.pop("sparse")), found)
