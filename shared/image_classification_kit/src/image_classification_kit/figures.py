"""Pictures for reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attention_core import atomic_path
from jaxtyping import Float
from torch import Tensor


def map_figure(picture: Any, maps: Mapping[str, Float[Tensor, "h w"]], path: str | Path) -> Path:
    """Draw each map over the picture it belongs to, side by side, under its title.

    Args:
        picture: a PIL image, as the network saw it.
        maps: title -> values; stretched over the picture.
        path: file to write; the suffix tells the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * (1 + len(maps)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    axes[0].imshow(picture)
    axes[0].set_title("input")
    for axis, (title, values) in zip(axes[1:], maps.items(), strict=True):
        axis.imshow(picture.convert("L"), cmap="gray", alpha=0.6)
        extent = (-0.5, picture.width - 0.5, picture.height - 0.5, -0.5)
        axis.imshow(values.detach().float().cpu(), cmap="inferno", alpha=0.6, extent=extent, vmin=0)
        axis.set_title(title)
    for axis in axes:
        axis.set_axis_off()
    return save(figure, path)


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure, whole or not at all."""
    with atomic_path(path) as part:
        figure.savefig(part, dpi=120)
    return Path(path)


def attention_figure(
    model: Any, images: Float[Tensor, "1 c h w"], picture: Any, path: str | Path
) -> Path:
    """Draw the class token's attention to the patches, mean over heads, in three of the blocks.

    Args:
        model: has ``class_attention``, which gives maps [batch, heads, h, w] of every block.
        images: the input made of the picture.
        picture: a PIL image, as the network saw it.
        path: file to write; the suffix tells the format.
    """
    with torch.no_grad():
        found = model.class_attention(images)
    blocks = sorted({0, len(found) // 2, len(found) - 1})
    return map_figure(picture, {f"block {i + 1}": found[i][0].mean(0) for i in blocks}, path)


def accuracy_figure(
    sizes: Sequence[float],
    accuracies: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    xlabel: str = "side of the images in pixels",
) -> Path:
    """Draw the accuracy of each network, from 0 to 1, over the size it was tested at."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, values in accuracies.items():
        axis.plot(sizes, [100 * value for value in values], marker="o", label=name)
    axis.set(xlabel=xlabel, ylabel="top-1 accuracy in %")
    axis.grid(alpha=0.3)
    axis.legend()
    return save(figure, path)


def line_figure(
    x: list[float], series: Mapping[str, list[float]], path: str | Path, *, xlabel: str, ylabel: str
) -> Path:
    """Lines over a logarithmic x, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, values in series.items():
        axis.plot(x, values, marker="o", label=name)
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    axis.legend()
    return save(figure, path)
