"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import (
    Evidence,
    Run,
    TokenConv,
    convolve,
    count_parameters,
    flops_of,
    growth_exponent,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from histoformer.attention import histogram_attention
from histoformer.loss import pearson_loss
from histoformer.model import VARIANTS, Histoformer, HistoformerConfig, HistogramBlock

SMALL = HistoformerConfig(dim=24, depths=(1, 1, 1, 1), refinement=1)
"""About two million weights: what an hour on a CPU can train."""
SEEDS, STEPS, FULL_STEPS = 3, 200, 1200
SIDE = 128
NOTE = (
    "photographs of scikit-image: five for training, 128 x 128 of astronaut and chelsea held out, "
    "each under synthetic rain, snow, haze and drops"
)


class ChannelAttention(nn.Module):
    """Attention between channels, nothing sorted: what histogram attention is compared with."""

    def __init__(self, dim: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = TokenConv(dim, 3 * dim, bias=bias)
        self.mix = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.out = TokenConv(dim, dim, bias=bias)

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        heads = len(self.temperature)
        q, k, v = rearrange(
            convolve(self.mix, self.qkv(x)),
            "b h w (t head c) -> t b head c (h w)",
            t=3,
            head=heads,
        )
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature
        out = rearrange(logits.softmax(-1) @ v, "b head c (h w) -> b h w (head c)", h=x.shape[1])
        return self.out(out)


def with_channel_attention(config: HistoformerConfig) -> Histoformer:
    """The network with channel attention in place of histogram attention."""
    model = Histoformer(config)
    for block in model.modules():
        if isinstance(block, HistogramBlock):
            heads, dim = len(block.attention.temperature), block.attention.out.in_channels
            block.attention = ChannelAttention(dim, heads, bias=config.bias)  # type: ignore[assignment]
    return model


@torch.no_grad()
def places_do_not_matter(run: Run) -> Evidence:
    draw = torch.Generator().manual_seed(run.seed)
    qkv = torch.randn(5, 2, 16, 250, generator=draw, dtype=torch.float64)
    temperature = torch.ones(4, 1, 1, dtype=torch.float64)
    out = histogram_attention(qkv, temperature)
    places = torch.randperm(qkv.shape[-1], generator=draw)
    shuffled = histogram_attention(qkv[..., places], temperature)
    error = ((shuffled - out[..., places]).abs().max() / out.std()).item()
    return Evidence(
        measured=f"largest difference {error:.0e} of the output's spread after a random shuffle",
        holds=error < 1e-12,
        numbers={"difference": error},
        note="250 pixels, 4 heads, float64; the convolutions around it do know places",
    )


def linear_cost(run: Run) -> Evidence:
    sides = (64, 128, 256)
    costs = [_flops(side) for side in sides]
    exponent = growth_exponent([side**2 for side in sides], costs)
    return Evidence(
        measured=f"cost grows with pixels to the power {exponent:.3f}",
        holds=abs(exponent - 1) < 0.01,
        numbers={"sides": list(sides), "gmacs": [cost / 2e9 for cost in costs]},
        note="products and convolutions of the published network, images of 64 to 256 a side",
    )


def printed_cost(run: Run) -> Evidence:
    with torch.device("meta"):
        model = Histoformer(VARIANTS["histoformer"]).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 256, 256))
    counts = counter.get_flop_counts()["Global"]
    total = counter.get_total_flops() / 2e9
    # 1x1 convolutions of maps whose last axis is the channels are counted as products of matrices.
    attention = counts[torch.ops.aten.bmm] / 2e9
    convolutions = total - attention
    parameters = count_parameters(model)
    return Evidence(
        measured=f"{parameters / 1e6:.2f} M; {total:.1f} G, of which convolutions "
        f"{convolutions:.1f} G",
        holds=abs(parameters - 16.62e6) < 1e4 and abs(convolutions / 91.58 - 1) < 0.02,
        numbers={"parameters": parameters, "gmacs": total, "convolutions": convolutions},
        note="holds means: the convolutions alone, which is what common counters see, are within "
        "2% of the printed figure",
    )


def correlation(run: Run) -> Evidence:
    draw = torch.Generator().manual_seed(run.seed)
    truth = torch.rand(1, 3, 64, 64, generator=draw)
    darker = 0.5 * truth + 0.1
    noise = torch.randn(truth.shape, generator=draw)
    noisy = truth + noise * ((darker - truth).abs().mean() / noise.abs().mean())
    rows = {"darker": darker, "noisy": noisy}
    absolute = {name: (image - truth).abs().mean().item() for name, image in rows.items()}
    related = {name: pearson_loss(image, truth).item() for name, image in rows.items()}
    return Evidence(
        measured=f"at the same absolute error of {absolute['darker']:.3f} the loss is "
        f"{related['darker']:.4f} for a darker image, {related['noisy']:.4f} for a noisy one",
        holds=abs(related["darker"]) < 1e-4 < 0.05 < related["noisy"]
        and math.isclose(absolute["darker"], absolute["noisy"], rel_tol=1e-3),
        numbers={"absolute": absolute, "correlation": related},
    )


@torch.no_grad()
def tiles(run: Run) -> Evidence:
    from image_restoration_kit import Tiling, enlarge, psnr, seam_error
    from image_restoration_kit.photographs import photograph

    torch.manual_seed(run.seed)
    model = Histoformer(
        HistoformerConfig(dim=12, depths=(1, 1, 1, 1), refinement=1, heads=(1,) * 4)
    )
    model = model.eval().to(run.device)
    image = photograph("chelsea.png")[None, :, 100:196, 120:248]
    whole = enlarge(model, image)
    found, said = {}, {}
    for tile in run.progress((32, 64), "tiles"):
        tiling = Tiling(tile=tile, halo=16)
        found[tile] = psnr(enlarge(model, image, tiling=tiling), whole, on_luma=False)
        seam = seam_error(model, image, tiling)
        said[tile] = None if seam is None else seam.psnr
    return Evidence(
        measured=", ".join(f"{value:.1f} dB in tiles of {tile}" for tile, value in found.items()),
        holds=all(math.isfinite(value) for value in found.values()),
        numbers={"psnr": {str(k): v for k, v in found.items()}, "at a seam": str(said)},
        note="a small network with random weights on 96 x 128 pixels, a halo of 16; PSNR against "
        "the whole image",
    )


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """What one short training showed on photographs it had not seen."""

    gain: float
    """Mean PSNR on luma over the degraded images, dB."""
    by_weather: dict[str, float]
    losses: list[float]


def restoration(
    run: Run,
    what: str,
    build: Callable[[HistoformerConfig], Histoformer] = Histoformer,
    weight: float = 1.0,
) -> list[Restoration]:
    """Short trainings under several seeds, made once per process and budget.

    Args:
        run: its budget decides the number of steps.
        what: names them.
        build: makes the network.
        weight: of the correlation loss.
    """
    steps = FULL_STEPS if run.full else STEPS
    key = what, run.seed, steps, run.device
    if key not in _done:
        _done[key] = [
            _restoration(run, f"{what}, seed {number}", build, weight, steps, run.seed + number)
            for number in range(SEEDS)
        ]
    return _done[key]


_done: dict[tuple[Any, ...], list[Restoration]] = {}


def _restoration(
    run: Run,
    what: str,
    build: Callable[[HistoformerConfig], Histoformer],
    weight: float,
    steps: int,
    seed: int,
) -> Restoration:
    from histoformer.data import Photographs, WeatherPairs
    from histoformer.train import losses

    torch.manual_seed(seed)
    data = WeatherPairs(Photographs(), patch=64, samples=4 * steps)
    model = build(SMALL).to(run.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    followed = []
    for step in run.progress(range(steps), what):
        pairs = [data[4 * step + number] for number in range(4)]
        low, high = (torch.stack(side).to(run.device) for side in zip(*pairs, strict=True))
        loss, _ = losses(model(low), high, weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        schedule.step()
        followed.append(loss.item())
    gains = held_out_gains(model.eval(), SIDE)
    return Restoration(gain=statistics.mean(gains.values()), by_weather=gains, losses=followed)


def held_out_gains(model: Histoformer, side: int) -> dict[str, float]:
    """PSNR on luma over the degraded image, for each weather on the held-out photographs."""
    from image_restoration_kit import enlarge, psnr, quantise
    from image_restoration_kit.photographs import HELD_OUT, photograph

    from histoformer.weather import WEATHER

    gains: dict[str, list[float]] = {kind: [] for kind in WEATHER}
    for number, name in enumerate(HELD_OUT):
        image = photograph(name)
        top, left = ((length - side) // 2 for length in image.shape[1:])
        high = image[:, top : top + side, left : left + side]
        for kind, degrade in WEATHER.items():
            low = quantise(degrade(high, torch.Generator().manual_seed(number)))
            restored = quantise(enlarge(model, low[None].float() / 255)[0])
            truth = quantise(high)
            gains[kind].append(psnr(restored, truth) - psnr(low, truth))
    return {kind: statistics.mean(values) for kind, values in gains.items()}


def learns(run: Run) -> Evidence:
    from image_restoration_kit.evidence import line_plot, spread

    found = restoration(run, "histogram attention")
    gains = [r.gain for r in found]
    path = run.output / "losses.png"
    with line_plot(path, "step", "training loss") as axes:
        for number, r in enumerate(found):
            axes.plot(r.losses, linewidth=0.8, label=f"seed {number}")
        axes.legend()
    rows = [
        [number, kind, f"{gain:+.2f}"]
        for number, r in enumerate(found)
        for kind, gain in r.by_weather.items()
    ]
    return Evidence(
        measured=f"{spread(gains)} dB over the degraded images",
        holds=min(gains) > 3,
        numbers={
            "gains": gains,
            "table": {"columns": ["seed", "weather", "gain / dB"], "rows": rows},
        },
        figures=(path,),
        note=f"{len(found[0].losses)} steps of 4 patches, {len(found)} seeds; {NOTE}",
    )


def ablation_attention(run: Run) -> Evidence:
    return _comparison(
        run,
        restoration(run, "histogram attention"),
        {"channel attention": restoration(run, "channel attention", with_channel_attention)},
    )


def ablation_loss(run: Run) -> Evidence:
    return _comparison(
        run,
        restoration(run, "histogram attention"),
        {"without correlation": restoration(run, "without correlation", weight=0.0)},
    )


def _comparison(run: Run, ours: list[Restoration], other: dict[str, list[Restoration]]) -> Evidence:
    from image_restoration_kit.evidence import spread

    ((name, others),) = other.items()
    gains, theirs = [r.gain for r in ours], [r.gain for r in others]
    ahead = [a - b for a, b in zip(gains, theirs, strict=True)]
    return Evidence(
        measured=f"as published {spread(gains)} dB over the degraded images, {name} "
        f"{spread(theirs)} dB",
        holds=min(ahead) > 0,
        numbers={"as published": gains, name: theirs},
        note=f"holds means: ahead under every seed. {len(ours[0].losses)} steps of 4 patches, "
        f"{len(ours)} seeds each; {NOTE}",
    )


def _flops(side: int) -> int:
    return flops_of(
        lambda: Histoformer(VARIANTS["histoformer"]),
        lambda: {"image": torch.empty(1, 3, side, side)},
    )
