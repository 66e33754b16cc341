"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attention_core import Evidence, Run, count_parameters
from jaxtyping import Float
from torch import Tensor, nn

from drct.model import DRCT, LAYERS, RESIDUAL_SCALE, VARIANTS, DRCTConfig, ResidualDenseGroup

SMALL = DRCTConfig(scale=2, dim=60, heads=(6, 6), window=8, growth=20)
"""About a million weights: what minutes on a CPU can train."""
HAT = {"parameters": 20_772_507, "gmacs": 103.9}
"""Of the HAT x4 that DRCT compares itself with, counted in its authors' code (64 x 64 input)."""
PRINTED_GMACS = {"drct_x4": 5.92, "drct_l_x4": 9.20}
"""The multiply-adds of the authors' README."""


def smaller_than_hat(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    with torch.device("meta"):
        parameters = count_parameters(DRCT(VARIANTS["drct_x4"]))
    cost = gmacs(partial(DRCT, VARIANTS["drct_x4"]))
    shares = parameters / HAT["parameters"], cost / HAT["gmacs"]
    return Evidence(
        measured=f"{shares[0]:.1%} of HAT's parameters, {shares[1]:.1%} of its multiply-adds",
        holds=abs(shares[0] - 0.681) < 0.001 and shares[1] < 0.75,
        numbers={"parameters": parameters, "gmacs": cost, "shares": list(shares)},
        note="HAT's figures were counted in its authors' code",
    )


def printed_cost(run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    found = {name: gmacs(partial(DRCT, VARIANTS[name])) for name in PRINTED_GMACS}
    ratios = [found[name] / printed for name, printed in PRINTED_GMACS.items()]
    return Evidence(
        measured=", ".join(f"{name} {cost:.1f} G" for name, cost in found.items()),
        holds=max(ratios) < 1.1,
        numbers=found,
        note=f"{ratios[0]:.1f} and {ratios[1]:.1f} times the printed figures",
    )


@torch.no_grad()
def bicubic_baseline(run: Run) -> Evidence:
    from image_restoration_kit import modcrop, psnr, quantise, resize, ssim
    from image_restoration_kit.photographs import HELD_OUT, photograph

    expected = {
        ("astronaut.png", 2): 31.7127,
        ("astronaut.png", 3): 28.6834,
        ("astronaut.png", 4): 26.8439,
        ("chelsea.png", 2): 35.2586,
        ("chelsea.png", 3): 32.8912,
        ("chelsea.png", 4): 31.4758,
    }
    rows, worst = [], 0.0
    for name in HELD_OUT:
        for scale in (2, 3, 4):
            high = modcrop(photograph(name), scale)
            low = quantise(resize(high, Fraction(1, scale))).float() / 255
            out, truth = quantise(resize(low, scale)), quantise(high)
            value = psnr(out, truth, border=scale)
            rows.append([name, scale, f"{value:.4f}", f"{ssim(out, truth, border=scale):.4f}"])
            worst = max(worst, abs(value - expected[name, scale]))
    columns = ["photograph", "scale", "PSNR-Y / dB", "SSIM-Y"]
    return Evidence(
        measured=f"within {worst:.0e} dB on {len(rows)} pairs",
        holds=worst < 1e-3,
        numbers={"table": {"columns": columns, "rows": rows}},
        note="the expected figures are those of BasicSR's functions on the same photographs",
    )


@torch.no_grad()
def tiles(run: Run) -> Evidence:
    from image_restoration_kit import Tiling, enlarge
    from image_restoration_kit.photographs import photograph

    torch.manual_seed(run.seed)
    model = DRCT(DRCTConfig(scale=2, dim=16, heads=(2, 2), window=4, growth=4, features=16))
    for parameter in model.parameters():  # as drawn, attention would hardly look around
        if parameter.ndim > 1:
            parameter.mul_(2)
    model = model.eval().to(run.device)
    image = photograph("chelsea.png")[None, :, 80:208, 100:260]
    whole = enlarge(model, image)
    halos = [0, 4, 8, 16, 32, -(-model.reach // 4) * 4]
    errors = {}
    for halo in run.progress(halos, "halos"):
        tiled = enlarge(model, image, tiling=Tiling(tile=32, halo=halo))
        errors[halo] = (tiled - whole).abs().max().item()
    figure = plot_tiles(errors, model.reach, run.output / "tiles.png")
    exact = errors[halos[-1]]
    return Evidence(
        measured=f"largest difference {errors[0]:.1e} without a halo, {exact:.0e} with {halos[-1]}",
        holds=exact < 1e-5 and errors[0] > 1e-4,
        numbers={"largest": {str(halo): error for halo, error in errors.items()}},
        figures=(figure,),
        note="a small network with random weights whose reach is shorter than the photograph; "
        f"the published DRCT reaches {DRCT(VARIANTS['drct_x4']).reach} pixels",
    )


class ChainGroup(ResidualDenseGroup):
    """The group without its dense connections: a layer sees x and what the one before it added."""

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        seen = x
        for number, (layer, adjust) in enumerate(zip(self.layers, self.adjust, strict=True)):
            grown = adjust(layer(seen))
            if number < LAYERS - 1:
                silent = x.new_zeros(*x.shape[:-1], grown.shape[-1] * number)
                seen = torch.cat([x, silent, nn.functional.leaky_relu(grown, 0.2)], -1)
        return torch.add(x, grown, alpha=RESIDUAL_SCALE)


def chain(config: DRCTConfig) -> DRCT:
    """A network of the same sizes whose groups are plain chains."""
    model = DRCT(config)
    for group in model.groups:
        group.__class__ = ChainGroup
    return model


def runs(run: Run, name: str) -> list[Any]:
    """The short runs of the ``dense`` network, or of the ``chain``."""
    from image_restoration_kit.evidence import seeded_runs

    build = {"dense": DRCT, "chain": chain}[name]
    return seeded_runs(run, name, lambda: build(SMALL), scale=SMALL.scale)


def learns(run: Run) -> Evidence:
    from image_restoration_kit.evidence import learning

    return learning(run, runs(run, "dense"), "DRCT")


def dense_against_chain(run: Run) -> Evidence:
    from image_restoration_kit.evidence import comparison

    dense, plain = runs(run, "dense"), runs(run, "chain")
    figure = plot_intensity(
        {"dense": dense[0].model.network, "chain": plain[0].model.network},
        run.output / "intensity.png",
    )
    return comparison(("dense", dense), {"chain": plain}, figures=(figure,))


@torch.no_grad()
def intensities(model: DRCT, image: Float[Tensor, "1 c h w"]) -> list[float]:
    """Mean magnitude of each group's output (what the paper's Fig. 2 follows through the depth)."""
    found: list[float] = []
    hooks = [
        group.register_forward_hook(
            lambda module, given, out: found.append(out.abs().mean().item())
        )
        for group in model.groups
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return found


def plot_intensity(models: dict[str, DRCT], path: Path) -> Path:
    from image_restoration_kit.evidence import line_plot
    from image_restoration_kit.photographs import photograph

    image = photograph("astronaut.png")[None, :, 128:192, 192:256]
    with line_plot(path, "group", "mean magnitude of the output") as axes:
        for name, model in models.items():
            device = next(model.parameters()).device
            values = intensities(model, image.to(device))
            axes.plot(range(1, len(values) + 1), values, marker="o", label=name)
        axes.legend()
    return path


def plot_tiles(errors: dict[int, float], reach: int, path: Path) -> Path:
    from image_restoration_kit.evidence import line_plot

    with line_plot(path, "halo / pixels", "largest difference from the whole image") as axes:
        axes.semilogy(list(errors), [max(error, 1e-8) for error in errors.values()], marker="o")
        axes.axvline(reach, linestyle=":", color="grey", label="reach")
        axes.legend()
    return path
