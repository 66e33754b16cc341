"""Super-resolution networks side by side: sizes, cost, short trainings, receptive fields."""

import importlib
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from attention_core import Evidence, Paper, Run, SuperResolver

from formers.comparisons import Study
from formers.comparisons.costs import cost

SCALES = (2, 3, 4)
SIDES, FULL_SIDES = (64, 128, 192), (64, 128, 256, 512, 720)
"""Of the input; 720 x 720 enlarged four times has the pixels of a 4K frame."""
PATCH = 32
"""Side of a training patch; whole windows in every small network."""


def small(paper: Paper, scale: int) -> SuperResolver:
    """The package's network for claims, fresh, at another scale."""
    config = importlib.import_module(f"{paper.slug}.claims").SMALL
    network: Any = paper.build(replace(config, scale=scale))
    return network


def sizes(papers: list[Paper], run: Run) -> Evidence:
    from image_restoration_kit.evidence import gmacs

    rows = []
    for paper in run.progress(papers, "sizes"):
        for name, config in paper.variants.items():
            if getattr(config, "scale", None) not in SCALES:
                continue
            with torch.device("meta"):
                network = paper.build(config)
            count = sum(p.numel() for p in network.parameters())
            cost = gmacs(partial(paper.build, config))
            rows.append([paper.slug, name, f"{count / 1e6:.2f}", f"{cost:.1f}"])
    columns = ["network", "variant", "parameters / M", "multiply-adds at 64 x 64 / G"]
    return Evidence(
        measured=f"{len(rows)} variants of {len(papers)} networks",
        holds=bool(rows),
        numbers={"table": {"columns": columns, "rows": rows}},
        note="Counted, not timed; products and convolutions as PyTorch counts them.",
    )


def short_training(papers: list[Paper], run: Run) -> Evidence:
    from image_restoration_kit.short_runs import short_run

    steps, seeds = (200, 3) if run.full else (30, 1)
    rows, gains = [], {}
    for paper in papers:
        for scale in SCALES:
            found = [
                short_run(
                    partial(small, paper, scale),
                    steps=steps, seed=run.seed + seed, scale=scale, patch=PATCH,
                    device=run.device,
                    progress=partial(_named, run, f"{paper.slug} x{scale}"),
                )
                for seed in range(seeds)
            ]  # fmt: skip
            gains[f"{paper.slug}:x{scale}"] = [r.gain for r in found]
            bicubic = statistics.mean(statistics.mean(r.bicubic.values()) for r in found)
            trained = statistics.mean(statistics.mean(r.psnr.values()) for r in found)
            count = sum(p.numel() for p in found[0].model.network.parameters())
            rows.append(
                [paper.slug, f"x{scale}", f"{count / 1e6:.2f}", f"{bicubic:.2f}", f"{trained:.2f}"]
            )
    columns = ["network", "scale", "parameters / M", "bicubic = random weights", "trained"]
    best = max(gains, key=lambda name: statistics.mean(gains[name]))
    ended = sum(min(values) > 0 for values in gains.values())
    return Evidence(
        measured=f"{ended} of {len(gains)} end above the bicubic image they start from; most by "
        f"{best.replace(':', ' ')}, {statistics.mean(gains[best]):+.2f} dB",
        holds=ended == len(gains),
        numbers={"gains": gains, "table": {"columns": columns, "rows": rows}},
        note=f"PSNR on luma in dB, the centres of two photographs held out; {steps} steps of 8 "
        f"patches, {seeds} seed(s); each package's small network, whose output is added to the "
        "bicubic image, so that before training it is the bicubic image. Sizes differ: this shows "
        "what minutes buy, not which network is best.",
    )


def receptive_field(papers: list[Paper], run: Run) -> Evidence:
    from image_restoration_kit.attribution import attribution_map, diffusion_index
    from image_restoration_kit.evidence import map_row
    from image_restoration_kit.photographs import photograph

    image = photograph("chelsea.png")[None, :, 100:196, 180:276].to(run.device)
    maps, indices = {}, {}
    for paper in run.progress(papers, "attribution"):
        torch.manual_seed(run.seed)
        network = small(paper, 2).eval().to(run.device)
        found = attribution_map(network, image).cpu()
        indices[paper.slug] = diffusion_index(found)
        maps[f"{paper.slug}: {indices[paper.slug]:.1f}"] = (found / found.max()).pow(0.25)
    listed = ", ".join(f"{name} {value:.1f}" for name, value in indices.items())
    return Evidence(
        measured=f"diffusion index {listed}",
        holds=all(0 < value <= 100 for value in indices.values()),
        numbers={"diffusion": indices},
        figures=(map_row(maps, run.output / "attribution.png"),),
        note="Local attribution of the 8 x 8 pixels in the middle of a 96 x 96 piece of a "
        "photograph, fourth root of the share; small networks with random weights, so that this "
        "shows what a design lets through, not what training makes of it.",
    )


def intensity(papers: list[Paper], run: Run) -> Evidence:
    """Deviation of the features after each group, over the depth of each network."""
    from image_restoration_kit.evidence import line_plot
    from image_restoration_kit.photographs import photograph

    image = photograph("chelsea.png")[None, :, 100:164, 180:244].to(run.device)
    curves: dict[str, list[float]] = {}
    for paper in run.progress(papers, "intensity"):
        torch.manual_seed(run.seed)
        network: Any = small(paper, 2).eval().to(run.device)
        curves[paper.slug] = []
        for group in network.groups:
            group.register_forward_hook(_recorder(curves[paper.slug]))
        with torch.inference_mode():
            network(image)
    path = run.output / "intensity.png"
    with line_plot(path, "depth (share of the groups)", "deviation of the features") as axes:
        for name, found in curves.items():
            axes.plot(torch.linspace(0, 1, len(found)), found, marker="o", label=name)
        axes.set_yscale("log")
        axes.legend(fontsize=8)
    listed = ", ".join(f"{name} {found[-1] / found[0]:.2f}" for name, found in curves.items())
    return Evidence(
        measured=f"from first group to last, times {listed}",
        holds=all(curves.values()),
        numbers={"deviation": curves},
        figures=(path,),
        note="Standard deviation of the features after each group of the small networks, random "
        "weights: the curve that DRCT's paper draws for trained networks.",
    )


def _named(run: Run, what: str, steps: Iterable[int]) -> Iterable[int]:
    return run.progress(steps, what)


def _recorder(deviations: list[float]) -> Callable[..., None]:
    def record(module: Any, given: Any, out: Any) -> None:
        deviations.append((out[0] if isinstance(out, tuple) else out).std().item())

    return record


STUDIES = (
    Study(
        id="sizes",
        question="How large are the networks?",
        cost="2 min on a CPU core",
        measure=sizes,
    ),
    Study(
        id="cost",
        question="What does an image cost, over its size?",
        cost="4 min on two CPU cores; over an hour with --full",
        measure=partial(cost, SIDES, FULL_SIDES),
    ),
    Study(
        id="short-training",
        question="What does a short training buy?",
        cost="6 min on two CPU cores; 2 hours with --full",
        measure=short_training,
    ),
    Study(
        id="receptive-field",
        question="Which pixels does an enlarged pixel depend on?",
        cost="1 min on two CPU cores",
        measure=receptive_field,
    ),
    Study(
        id="intensity",
        question="How do the features spread over the depth?",
        cost="10 s on a CPU core",
        measure=intensity,
    ),
)
