"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

import statistics
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attention_core import Evidence, Run, WindowAttention, count_parameters, flops_of
from jaxtyping import Float
from torch import Tensor, nn

from drct.model import DRCT, LAYERS, RESIDUAL_SCALE, VARIANTS, DRCTConfig, ResidualDenseGroup

SMALL = DRCTConfig(scale=2, dim=60, heads=(6, 6), window=8, growth=20)
"""About a million weights: what minutes on a CPU can train."""
HAT = {"parameters": 20_772_507, "gmacs": 103.9}
"""Of the HAT x4 that DRCT compares itself with, counted in its authors' code (64 x 64 input)."""
PRINTED_GMACS = {"drct_x4": 5.92, "drct_l_x4": 9.20}
"""The multiply-adds of the authors' README."""
NOTE = (
    "photographs of scikit-image: five for training, the centres (256 x 256) of astronaut and "
    "chelsea held out; the network's output is added to the bicubic image, which the paper does not"
)


def gmacs(config: DRCTConfig, side: int = 64) -> float:
    """Multiply-adds of one forward pass in units of 1e9, without the padding of the heads."""

    def build() -> DRCT:
        model = DRCT(config)
        for module in model.modules():
            if isinstance(module, WindowAttention):
                module.alignment = 1
        return model

    flops = flops_of(build, lambda: {"image": torch.empty(1, config.channels, side, side)})
    return flops / 2e9


def smaller_than_hat(run: Run) -> Evidence:
    with torch.device("meta"):
        parameters = count_parameters(DRCT(VARIANTS["drct_x4"]))
    cost = gmacs(VARIANTS["drct_x4"])
    shares = parameters / HAT["parameters"], cost / HAT["gmacs"]
    return Evidence(
        measured=f"{shares[0]:.1%} of HAT's parameters, {shares[1]:.1%} of its multiply-adds",
        holds=abs(shares[0] - 0.681) < 0.001 and shares[1] < 0.75,
        numbers={"parameters": parameters, "gmacs": cost, "shares": list(shares)},
        note="HAT's figures were counted in its authors' code",
    )


def printed_cost(run: Run) -> Evidence:
    found = {name: gmacs(VARIANTS[name]) for name in PRINTED_GMACS}
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


def runs(run: Run, build: Callable[[DRCTConfig], DRCT], what: str) -> list[Any]:
    """The short runs of every seed, made once per process and budget."""
    from image_restoration_kit.short_runs import short_run

    steps = FULL_STEPS if run.full else STEPS
    key = what, run.seed, steps, run.device
    if key not in _done:
        _done[key] = [
            short_run(
                lambda: build(SMALL),
                steps=steps,
                seed=run.seed + number,
                scale=SMALL.scale,
                device=run.device,
                progress=partial(_named, run, f"{what}, seed {number}"),
            )
            for number in range(SEEDS)
        ]
    return _done[key]


def _named(run: Run, what: str, steps: Iterable[int]) -> Iterable[int]:
    return run.progress(steps, what)


SEEDS, STEPS, FULL_STEPS = 3, 60, 300
_done: dict[tuple[Any, ...], list[Any]] = {}


def learns(run: Run) -> Evidence:
    found = runs(run, DRCT, "dense")
    gains, ratios = [r.gain for r in found], [r.loss_ratio for r in found]
    rows = [
        [r.seed, name, f"{r.bicubic[name]:.2f}", f"{r.psnr[name]:.2f}"]
        for r in found
        for name in r.psnr
    ]
    columns = ["seed", "photograph", "bicubic PSNR-Y / dB", "DRCT PSNR-Y / dB"]
    figure = plot_losses([r.losses for r in found], run.output / "losses.png")
    return Evidence(
        measured=f"{_spread(gains)} dB over bicubic; loss {statistics.mean(ratios):.3f} of its",
        holds=min(gains) > 0 and max(ratios) < 1,
        numbers={
            "gains": gains,
            "loss ratios": ratios,
            "table": {"columns": columns, "rows": rows},
        },
        figures=(figure,),
        note=f"{len(found[0].losses)} steps of 8 patches, {SEEDS} seeds, x2; {NOTE}",
    )


def dense_against_chain(run: Run) -> Evidence:
    dense, plain = runs(run, DRCT, "dense"), runs(run, chain, "chain")
    gains = [[r.gain for r in found] for found in (dense, plain)]
    figure = plot_intensity(
        {"dense": dense[0].model.network, "chain": plain[0].model.network},
        run.output / "intensity.png",
    )
    means = [statistics.mean(values) for values in gains]
    return Evidence(
        measured=f"dense {_spread(gains[0])} dB over bicubic, chain {_spread(gains[1])} dB",
        holds=means[0] >= means[1] - 0.1,
        numbers={"dense": gains[0], "chain": gains[1]},
        figures=(figure,),
        note=f"holds means: dense is not behind by more than 0.1 dB; at this budget no more can be "
        f"said. {len(dense[0].losses)} steps, {SEEDS} seeds each; {NOTE}",
    )


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
    from image_restoration_kit.photographs import photograph

    image = photograph("astronaut.png")[None, :, 128:192, 192:256]
    with _figure(path, "group", "mean magnitude of the output") as axes:
        for name, model in models.items():
            device = next(model.parameters()).device
            values = intensities(model, image.to(device))
            axes.plot(range(1, len(values) + 1), values, marker="o", label=name)
        axes.legend()
    return path


def plot_tiles(errors: dict[int, float], reach: int, path: Path) -> Path:
    with _figure(path, "halo / pixels", "largest difference from the whole image") as axes:
        axes.semilogy(list(errors), [max(error, 1e-8) for error in errors.values()], marker="o")
        axes.axvline(reach, linestyle=":", color="grey", label="reach")
        axes.legend()
    return path


def plot_losses(losses: list[list[float]], path: Path) -> Path:
    with _figure(path, "step", "training loss (L1)") as axes:
        for seed, values in enumerate(losses):
            axes.plot(values, linewidth=0.8, label=f"seed {seed}")
        axes.legend()
    return path


class _figure:  # noqa: N801 -- reads as a function
    """A small line plot, saved when the block ends."""

    def __init__(self, path: Path, x: str, y: str) -> None:
        self.path, self.x, self.y = path, x, y

    def __enter__(self) -> Any:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = self.figure.subplots()
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        return axes

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.figure.savefig(self.path, dpi=150)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"
