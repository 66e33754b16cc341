"""What becomes of an enlarged image when high frequencies are taken away (Sec. 3.1, Fig. 1)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from craft.model import CRAFT


def low_pass(image: Float[Tensor, "*batch h w"], radius: float) -> Float[Tensor, "*batch h w"]:
    """The frequencies up to ``radius`` times the highest of each axis; 1.5 keeps all, 0 the mean.

    Raises:
        ValueError: for a negative radius.
    """
    if radius < 0:
        raise ValueError(f"radius={radius}: must be at least 0")
    height, width = image.shape[-2:]
    y = torch.fft.fftfreq(height, device=image.device)[:, None]
    x = torch.fft.rfftfreq(width, device=image.device)
    kept = (2 * torch.hypot(y, x) <= radius).to(image.dtype)
    return torch.fft.irfft2(torch.fft.rfft2(image) * kept, s=(height, width))


@contextmanager
def filtered_branch(model: CRAFT, radius: float) -> Iterator[None]:
    """While it lasts, the high-frequency branches pass frequencies up to ``radius`` only."""

    def keep(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return low_pass(out.movedim(-1, 1), radius).movedim(1, -1)

    branches = [block.high for group in model.groups for block in group.blocks]  # type: ignore[union-attr]
    hooks = [branch.register_forward_hook(keep) for branch in branches]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def input_curve(
    network: nn.Module,
    low: Float[Tensor, "1 c h w"],
    truth: Float[Tensor, "c H W"],
    radii: Sequence[float],
) -> list[float]:
    """PSNR on luma of ``network`` for each radius up to which the input's frequencies are kept."""
    from image_restoration_kit import enlarge, psnr, quantise

    border = network.scale
    return [
        psnr(quantise(enlarge(network, low_pass(low, r))[0]), quantise(truth), border=border)  # type: ignore[arg-type]
        for r in radii
    ]
