"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

import statistics
from dataclasses import replace
from functools import partial

import torch
from attention_core import Evidence, Run
from torch import Tensor, nn

from hat.model import (
    HAT,
    VARIANTS,
    HATConfig,
    HybridAttentionBlock,
    OverlappingCrossAttentionBlock,
)

SMALL = HATConfig(
    scale=2, dim=60, depths=(2, 2), heads=(6, 6), window=8, overlap=2, squeeze=15
)  # fmt: skip
"""About half a million weights: what minutes on a CPU can train."""
PRINTED = {"hat_x4": (102.4, 20.8), "hat_s_x4": (54.9, 9.6)}
"""Variant -> multiply-adds at 64 x 64 in G, parameters in M."""
PARTS = {
    "both": (True, True),
    "overlapping attention": (True, False),
    "channel attention": (False, True),
    "neither": (False, False),
}
"""Rows of the paper's ablation -> overlapping cross-attention, channel attention."""


def without(config: HATConfig, overlapping: bool, channel: bool) -> HAT:
    """The network with or without its two parts (Table 2)."""
    model = HAT(config if channel else replace(config, conv_scale=0.0))
    for group in model.groups:
        group.overlap = group.overlap if overlapping else nn.Identity()
    return model


def support(block: nn.Module, dim: int, side: int, place: tuple[int, int]) -> Tensor:
    """Positions of a random map that one position of the block's output depends on."""
    x = torch.randn(1, side, side, dim, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block.double()(x)[0, *place].sum(), x)
    size = gradient[0].abs().amax(-1)
    return size > 1e-30 * size.max()  # what a mask hides leaks exp(-100)


def more_pixels(run: Run) -> Evidence:
    from image_restoration_kit.evidence import map_row

    torch.manual_seed(run.seed)
    config = HATConfig(
        scale=1, dim=16, depths=(2,), heads=(2,), window=8, overlap=2, squeeze=4, conv_scale=0.5
    )
    side, place = 32, (17, 12)
    plain = replace(config, conv_scale=0.0)
    blocks = {
        "window attention": HybridAttentionBlock(plain, 2, shift=0, drop_path=0.0),
        "shifted window attention": HybridAttentionBlock(plain, 2, shift=4, drop_path=0.0),
        "with channel attention": HybridAttentionBlock(config, 2, shift=0, drop_path=0.0),
        "overlapping cross-attention": OverlappingCrossAttentionBlock(config, 2),
    }
    expected = [8 * 8, 8 * 8, side * side, 12 * 12]
    for block in blocks.values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
    # A channel gate whose units are all silent would see nothing of the image.
    nn.init.ones_(blocks["with channel attention"].get_parameter("conv.squeeze.bias"))
    maps = {name: support(block, config.dim, side, place) for name, block in blocks.items()}
    counts = {name: int(seen.sum()) for name, seen in maps.items()}
    return Evidence(
        measured=", ".join(f"{name} {count}" for name, count in counts.items()) + " positions",
        holds=list(counts.values()) == expected,
        numbers={"positions": counts, "of": side * side},
        figures=(
            map_row({n: seen.float() for n, seen in maps.items()}, run.output / "supports.png"),
        ),
        note="non-zero gradients of one output position of a block with random weights",
    )


def attribution(run: Run) -> Evidence:
    from image_restoration_kit.attribution import attribution_map, diffusion_index
    from image_restoration_kit.evidence import map_row
    from image_restoration_kit.photographs import photograph

    image = photograph("astronaut.png")[None, :, 96:160, 200:264].to(run.device)
    maps, found = {}, {}
    for name in PARTS:
        each = [attribution_map(r.model.network, image) for r in runs(run, name)]
        maps[name], found[name] = each[0], [diffusion_index(one) for one in each]
    means = {name: statistics.mean(values) for name, values in found.items()}
    shown = {name: (m / m.max()).sqrt().cpu() for name, m in maps.items()}
    return Evidence(
        measured="diffusion index " + ", ".join(f"{n} {mean:.2f}" for n, mean in means.items()),
        holds=min(found["both"]) > max(found["neither"]),
        numbers=found,
        figures=(map_row(shown, run.output / "attribution.png"),),
        note="after the short trainings of the claim ablation; the paper's maps are of networks "
        "trained for days. Holds means: in every run",
    )


def printed_cost(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    found = {}
    for name in PRINTED:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in HAT(VARIANTS[name]).parameters())
        found[name] = gmacs(partial(HAT, VARIANTS[name])), parameters / 1e6
    ratios = [
        value / printed
        for name, pair in found.items()
        for value, printed in zip(pair, PRINTED[name], strict=True)
    ]
    return Evidence(
        measured=", ".join(f"{n} {cost:.1f} G, {size:.2f}M" for n, (cost, size) in found.items()),
        holds=all(abs(ratio - 1) < 0.02 for ratio in ratios),
        numbers={n: {"gmacs": cost, "parameters in M": size} for n, (cost, size) in found.items()},
        note="x4; holds means within 2 %",
    )


def runs(run: Run, parts: str):  # type: ignore[no-untyped-def]
    from image_restoration_kit.evidence import seeded_runs

    return seeded_runs(run, parts, lambda: without(SMALL, *PARTS[parts]), scale=SMALL.scale)


def learns(run: Run) -> Evidence:
    from image_restoration_kit.evidence import learning

    return learning(run, runs(run, "both"), "HAT")


def ablation(run: Run) -> Evidence:
    from image_restoration_kit.evidence import comparison

    found = {name: runs(run, name) for name in PARTS}
    return comparison(("both", found.pop("both")), found)
