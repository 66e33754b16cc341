"""Forecast errors that do not depend on how many windows are taken at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from forecasting_kit.metrics import ErrorMeter, Errors
from forecasting_kit.windows import Batch, Windows, run

BLOCK = 32
"""Windows per forward pass in every evaluation.

Matrix products round differently for different batch sizes, and sums for different orders. So a
network sees the same blocks whatever batch size it is trained, served or moved with, and the result
is the same to the last bit.
"""

Steps = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""(steps, how many, what) -> the same steps, while a bar moves."""


def evaluate(model: nn.Module, windows: Windows, *, progress: Steps | None = None) -> Errors:
    """The errors of ``model`` over every window, none left out, in the windows' own space.

    Args:
        model: called as ``model(x, marks)``, in evaluation mode; on the device of the windows.
        windows: of one split.
        progress: draws a bar.
    """
    meter = ErrorMeter()
    blocks: Iterable[Batch] = windows.blocks(BLOCK)
    if progress is not None:
        blocks = progress(blocks, -(-len(windows) // BLOCK), "evaluating")
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in blocks:
                meter.update(run(model, batch), batch.y)
    finally:
        model.train(training)
    return meter.errors()
