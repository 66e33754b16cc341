"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from attention_core import Evidence, Run, count_parameters, growth_exponent
from jaxtyping import Float
from torch import Tensor, nn

from rgt.model import (
    RGT,
    SHRINK,
    VARIANTS,
    Block,
    GlobalAttention,
    LocalAttention,
    RGTConfig,
    recursions,
)  # fmt: skip

SMALL = RGTConfig(scale=2, dim=96, depths=(2, 2), heads=(4, 4), window=(4, 8))
"""Two thirds of a million weights: what minutes on a CPU can train."""
PRINTED = {"rgt_s_x4": (193.08, 10.20), "rgt_x4": (251.07, 13.37)}
"""Variant -> multiply-adds at 128 x 128 in G, parameters in M."""


def local_only(config: RGTConfig) -> RGT:
    """The network with local attention where the paper has global."""
    model = RGT(config)
    for block in model.modules():
        if isinstance(block, Block) and isinstance(block.attention, GlobalAttention):
            block.attention = LocalAttention(config, block.attention.heads, shifted=True)
    return model


def without_integration(config: RGTConfig) -> RGT:
    """The network whose blocks do not add their input once more."""
    model = RGT(config)
    for block in model.modules():
        if isinstance(block, Block):
            nn.init.zeros_(block.gamma).requires_grad_(False)
    return model


def printed_cost(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    found = {}
    for name in PRINTED:
        with torch.device("meta"):
            parameters = count_parameters(RGT(VARIANTS[name]))
        found[name] = gmacs(partial(RGT, VARIANTS[name]), side=128), parameters / 1e6
    ratios = [
        value / printed
        for name, pair in found.items()
        for value, printed in zip(pair, PRINTED[name], strict=True)
    ]
    return Evidence(
        measured=", ".join(f"{n} {cost:.1f} G, {size:.2f}M" for n, (cost, size) in found.items()),
        holds=all(abs(ratio - 1) < 0.02 for ratio in ratios),
        numbers={n: {"gmacs": cost, "parameters in M": size} for n, (cost, size) in found.items()},
        note="x4, 128 x 128 pixels in; holds means within 2 %",
    )


def attention_cost(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs, line_plot

    sides = (64, 128, 256, 512, 1024, 2048, 4096)
    config = VARIANTS["rgt_s_x4"]
    width = config.dim + config.key_dim
    keys = {side: (side // SHRINK ** recursions(side, side, training=False)) ** 2 for side in sides}
    most = max(
        (side // SHRINK ** recursions(side, side, training=False)) ** 2 for side in range(16, 8192)
    )
    costs = {side: side**2 * keys[side] * width / 1e9 for side in sides}
    within = growth_exponent([s**2 for s in sides[:4]], [costs[s] for s in sides[:4]])
    across = growth_exponent([s**2 for s in (1024, 4096)], [costs[s] for s in (1024, 4096)])
    blocks = sum(depth // 2 for depth in config.depths)
    share = blocks * costs[128] / gmacs(partial(RGT, config), side=128)
    path = run.output / "cost.png"
    with line_plot(path, "image side / pixels", "G multiply-adds of one RG-SA's attention") as axes:
        axes.loglog(sides, list(costs.values()), marker="o")
    return Evidence(
        measured=f"at most {most} keys at any size; pixels to the power {across:.2f} across steps "
        f"of the recursion, {within:.2f} within one",
        holds=most <= 63**2 and abs(across - 1) < 0.01,
        numbers={"keys": {str(s): n for s, n in keys.items()}, "gmacs": list(costs.values()),
                 "share of RGT-S at 128 pixels": share},
        figures=(path,),
        note="holds means: the number of keys is bounded, so that the cost is linear in the end. "
        f"From 64 to 1023 pixels it is quadratic; at 128 attention is {share:.1%} of RGT-S",
    )  # fmt: skip


def influence(model: RGT, side: int) -> Float[Tensor, "side side"]:
    """How much each input pixel matters to the output's middle."""
    image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    middle = side * model.scale // 2
    out = model.double().eval()(image)[0, :, middle, middle].sum()
    (gradient,) = torch.autograd.grad(out, image)
    return gradient[0].abs().amax(0)


def global_reach(run: Run) -> Evidence:
    from image_restoration_kit.evidence import map_row

    config = RGTConfig(scale=1, dim=32, depths=(2,), heads=(2,), window=(8, 32))
    builds: dict[str, Callable[[RGTConfig], RGT]] = {"RG-SA": RGT, "L-SA alone": local_only}
    maps = {}
    for name, build in builds.items():
        torch.manual_seed(run.seed)
        model = build(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        maps[name] = influence(model, 128)
    seen = {
        name: (values > 1e-30 * values.max()).float().mean().item() for name, values in maps.items()
    }
    shown = {name: (1 + (v / v.max() + 1e-6).log10() / 6).clamp(0) for name, v in maps.items()}
    return Evidence(
        measured=", ".join(f"{n} {share:.1%}" for n, share in seen.items()) + " of the pixels",
        holds=seen["RG-SA"] == 1 and seen["L-SA alone"] < 0.75,
        numbers=seen,
        figures=(map_row(shown, run.output / "influence.png"),),
        note="pixels with a gradient at the middle of 128 x 128; two blocks, random weights",
    )  # fmt: skip


PARTS: dict[str, Callable[[RGTConfig], RGT]] = {
    "RGT": RGT,
    "local attention alone": local_only,
    "no hybrid integration": without_integration,
}


def runs(run: Run, name: str) -> Any:
    from image_restoration_kit.evidence import seeded_runs

    return seeded_runs(run, name, lambda: PARTS[name](SMALL), scale=SMALL.scale)


def learns(run: Run) -> Evidence:
    from image_restoration_kit.evidence import learning

    return learning(run, runs(run, "RGT"), "RGT")


def ablation(run: Run) -> Evidence:
    from image_restoration_kit.evidence import comparison

    found = {name: runs(run, name) for name in PARTS}
    return comparison(("RGT", found.pop("RGT")), found)
