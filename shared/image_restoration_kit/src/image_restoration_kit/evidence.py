"""What the claims of several packages measure alike: short trainings, their comparison, figures."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attention_core import Evidence, Run, SuperResolver, flops_of
from torch import Tensor, nn

from image_restoration_kit.short_runs import ShortRun, short_run

SEEDS, STEPS, FULL_STEPS = 3, 60, 300
NOTE = (
    "photographs of scikit-image: five for training, the centres (256 x 256) of astronaut and "
    "chelsea held out; the network's output is added to the bicubic image, which the paper does not"
)
_done: dict[tuple[Any, ...], list[ShortRun]] = {}


def seeded_runs(
    run: Run, what: str, build: Callable[[], Any], *, seeds: int = SEEDS, **options: Any
) -> list[ShortRun]:
    """Short runs of ``build`` under several seeds, made once per process and budget.

    Args:
        run: its budget decides the number of steps.
        what: names the network.
        build: makes it.
        seeds: how many.
        options: of :func:`~image_restoration_kit.short_runs.short_run`.
    """
    steps = options.pop("steps", FULL_STEPS if run.full else STEPS)
    key = what, run.seed, steps, run.device, seeds
    if key not in _done:
        _done[key] = [
            short_run(
                build,
                steps=steps,
                seed=run.seed + number,
                device=run.device,
                progress=partial(_named, run, f"{what}, seed {number}"),
                **options,
            )
            for number in range(seeds)
        ]
    return _done[key]


def _named(run: Run, what: str, steps: Iterable[int]) -> Iterable[int]:
    return run.progress(steps, what)


def learning(run: Run, found: Sequence[ShortRun], network: str) -> Evidence:
    """Whether every run ends above bicubic enlargement, which it starts from."""
    gains, ratios = [r.gain for r in found], [r.loss_ratio for r in found]
    rows = [
        [r.seed, name, f"{r.bicubic[name]:.2f}", f"{r.psnr[name]:.2f}"]
        for r in found
        for name in r.psnr
    ]
    columns = ["seed", "photograph", "bicubic PSNR-Y / dB", f"{network} PSNR-Y / dB"]
    path = run.output / "losses.png"
    with line_plot(path, "step", "training loss (L1)") as axes:
        for r in found:
            axes.plot(r.losses, linewidth=0.8, label=f"seed {r.seed}")
        axes.legend()
    return Evidence(
        measured=f"{spread(gains)} dB over bicubic; loss {statistics.mean(ratios):.3f} of its",
        holds=min(gains) > 0 and max(ratios) < 1,
        numbers={
            "gains": gains,
            "loss ratios": ratios,
            "table": {"columns": columns, "rows": rows},
        },
        figures=(path,),
        note=f"{len(found[0].losses)} steps of 8 patches, {len(found)} seeds; {NOTE}",
    )


def comparison(
    with_part: tuple[str, Sequence[ShortRun]],
    without: Mapping[str, Sequence[ShortRun]],
    *,
    slack: float = 0.1,
    figures: tuple[Path, ...] = (),
) -> Evidence:
    """The same budget with a part of the paper and without: not behind by more than ``slack`` dB.

    Args:
        with_part: its name, and the runs.
        without: each alternative's name and runs.
        slack: what the means may differ by, in dB: such a budget can't tell less.
        figures: to show.
    """
    runs = {with_part[0]: with_part[1], **without}
    gains = {name: [r.gain for r in found] for name, found in runs.items()}
    means = {name: statistics.mean(values) for name, values in gains.items()}
    found = with_part[1]
    return Evidence(
        measured="over bicubic: "
        + ", ".join(f"{name} {spread(values)} dB" for name, values in gains.items()),
        holds=all(means[with_part[0]] >= mean - slack for mean in means.values()),
        numbers=gains,
        figures=figures,
        note=f"holds means: not behind by more than {slack} dB; this budget can't tell less. "
        f"{len(found[0].losses)} steps, {len(found)} seeds each; {NOTE}",
    )


def gmacs(network: Callable[[], SuperResolver], side: int = 64) -> float:
    """Multiply-adds of one forward pass in units of 1e9, without the padding of the heads."""

    def build() -> SuperResolver:
        model = network()
        for module in model.modules():
            if hasattr(module, "alignment"):
                module.alignment = 1  # type: ignore[assignment]
        return model

    with torch.device("meta"):
        channels = network().channels
    return flops_of(build, lambda: {"image": torch.empty(1, channels, side, side)}) / 2e9


def map_row(maps: Mapping[str, Tensor], path: Path) -> Path:
    """Maps of values in [0, 1], or of truths, side by side under their names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.25 * len(maps), 2.6), layout="constrained")
    rows = figure.subplots(1, len(maps), squeeze=False)
    for axes, (name, values) in zip(rows[0], maps.items(), strict=True):
        axes.imshow(values, cmap="viridis", vmin=0, vmax=1)
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()
    figure.savefig(path, dpi=150)
    return path


def spread(values: Sequence[float]) -> str:
    """Mean, least and most."""
    return f"{statistics.mean(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"


@contextmanager
def line_plot(path: Path, x: str, y: str) -> Iterator[Any]:
    """The axes of a small plot, saved when the block ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    yield axes
    figure.savefig(path, dpi=150)


class MapsInMemory(nn.Module):
    """``network`` with its attention unfused: the other side of a race."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):
            return self.network(image)
