"""Measurements behind the claims of ``paper.py``; those on the brain need the extra ``claims``."""

import functools
import importlib.util
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_core import Evidence, Run
from jaxtyping import Float, Int
from torch import Tensor, nn

from rat.attention import RegionAttention, group_by_region, mask_by_region
from rat.losses import FocalRegionLoss
from rat.model import RAT, NAFBlock, RATConfig
from rat.regions import make_regions

SMALL = RATConfig(width=16, blocks=1, heads=4)
"""What minutes on a CPU can train."""
NOISE = 0.1
"""Standard deviation of the noise on slices in [0, 1]."""
SEEDS, STEPS, FULL_STEPS = 3, 100, 200


@torch.no_grad()
def partition_algebra(run: Run) -> Evidence:
    torch.manual_seed(run.seed)
    attention = RegionAttention(32, 4).double()
    x = torch.randn(2, 12, 16, 32, dtype=torch.float64)
    value = attention.proj(attention.qkv(x)[..., 64:])

    def out(labels: Tensor, table: bool = False) -> Tensor:
        group = mask_by_region if table else group_by_region
        return attention(x, group(labels.flatten(1)))

    labels = torch.randint(0, 9, (2, 12, 16))
    one, each = torch.zeros_like(labels), torch.arange(12 * 16).view(1, 12, 16).expand(2, -1, -1)
    gaps = {
        "other names of the regions": out(labels) - out(torch.randperm(99)[labels]),
        "one region and attention over the image": out(one) - out(one, table=True),
        "a region each and the values": out(each) - value,
        "sorted and masked": out(labels) - out(labels, table=True),
    }
    found = {name: gap.abs().max().item() for name, gap in gaps.items()}
    return Evidence(
        measured=f"largest difference {max(found.values()):.0e}",
        holds=max(found.values()) < 1e-10,
        numbers=found,
        note="float64, two images of 12 x 16 with nine regions each",
    )


def focal_weights(run: Run) -> Evidence:
    torch.manual_seed(run.seed)
    clean, regions = torch.rand(1, 1, 32, 32), torch.arange(32).expand(32, 32) // 16
    error = torch.where(regions == 0, 0.1, 0.4)
    ratios = {}
    for beta in (1e-3, 1.0):
        out = (clean + error).requires_grad_()
        (gradient,) = torch.autograd.grad(FocalRegionLoss(beta)(out, clean, regions), out)
        ratios[beta] = (gradient[..., 31] / gradient[..., 0]).mean().item()
    expected = {beta: (1 + beta) / (1 + beta / 4) for beta in ratios}
    return Evidence(
        measured=", ".join(f"beta {beta:g}: {ratio:.4f} times" for beta, ratio in ratios.items()),
        holds=all(abs(ratios[beta] - expected[beta]) < 1e-4 for beta in ratios),
        numbers={str(beta): ratio for beta, ratio in ratios.items()},
        note="gradient of a region with four times the error, over the other's",
    )


def regions_follow_tissue(run: Run) -> Evidence:
    image, _ = brain()
    rows, shares = [], []
    for method in run.progress(("felzenszwalb", "slic", "quantiles"), "segmenting"):
        gains = []
        for z in (20, 35, 50, 65):
            labels = make_regions(image[z], method)
            count = int(labels.unique().numel())
            gains.append((explained(image[z], labels), explained(image[z], grid(count))))
        found, plain = (statistics.mean(values) for values in zip(*gains, strict=True))
        rows.append([method, f"{found:.3f}", f"{plain:.3f}"])
        shares.append((found, plain))
    return Evidence(
        measured=", ".join(f"{row[0]} {row[1]} against {row[2]}" for row in rows),
        holds=all(found > plain for found, plain in shares),
        numbers={"table": {"columns": ["regions", "share", "share of a grid"], "rows": rows}},
        note="share of the intensities' variance that lies between regions, and between as many "
        "squares; four axial slices of the MNI152 brain (nilearn)",
    )


def denoises(run: Run) -> Evidence:
    found = {name: _runs(run, name) for name in NETWORKS}
    gains = {name: [r["gain"] for r in results] for name, results in found.items()}
    means = {name: statistics.mean(values) for name, values in gains.items()}
    figure = _picture(found["region"][0], run.output / "slice.png")
    return Evidence(
        measured=", ".join(f"{name} {mean:+.2f} dB" for name, mean in means.items()),
        holds=min(gains["region"]) > 3 and means["region"] > means["global"] - 0.1,
        numbers=gains,
        figures=(figure,),
        note=f"gain over slices with Gaussian noise of {NOISE}; {SEEDS} seeds, "
        f"{FULL_STEPS if run.full else STEPS} steps of 4 slices; axial slices of the MNI152 brain, "
        "the lower ones for training, those above a gap to test; regions: background, grey and "
        "white matter, fluid. Holds means: over 3 dB, and not behind global attention by 0.1 dB",
    )


class Plain(nn.Module):
    """A NAF block in the place of a layer of region and window attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = NAFBlock(dim)

    def forward(self, x: Float[Tensor, "b h w dim"], regions: Any) -> Float[Tensor, "b h w dim"]:
        return self.block(x)


def _without_regions(model: RAT) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("region_scale"):
            parameter.requires_grad_(False)  # it stays zero


def _without_attention(model: RAT) -> None:
    c = model.config
    for block in model.blocks:
        block.layers = nn.ModuleList(Plain(c.dim) for _ in range(c.layers))


NETWORKS: dict[str, Any] = {
    "region": lambda model: None,
    "global": lambda model: None,
    "window": _without_regions,
    "NAF": _without_attention,
}


@functools.cache
def brain() -> tuple[Float[Tensor, "z 1 96 96"], Int[Tensor, "z 96 96"]]:
    """Axial slices of the MNI152 T1 volume at 2 mm in [0, 1], and their tissues.

    Raises:
        ModuleNotFoundError: without nilearn, which the extra ``claims`` brings.
    """
    import nibabel

    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("nilearn is missing: install formers-rat with its extra [claims]")
    folder = Path(found.origin).parent / "datasets" / "data"

    def volume(kind: str) -> np.ndarray:
        file = folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        data = nibabel.load(file).get_fdata(dtype=np.float32)[::2, ::2, ::2]  # type: ignore[attr-defined]
        left, top = ((side - 96) // 2 for side in data.shape[:2])
        return data[left : left + 96, top : top + 96].transpose(2, 1, 0) / data.max()

    image, grey, white = volume("t1"), volume("gm"), volume("wm")
    fluid = (image > 0.1) * (1 - grey - white).clip(0, 1)
    tissues = np.stack([np.full_like(image, 0.2), grey, white, fluid]).argmax(0)
    return torch.from_numpy(image.copy())[:, None], torch.from_numpy(tissues)


def explained(image: Tensor, labels: Tensor) -> float:
    """Share of the variance of ``image`` that lies between its regions."""
    values = image.flatten().double()
    _, label, counts = labels.flatten().unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(counts), dtype=values.dtype).index_add_(0, label, values) / counts
    return (means[label].var(correction=0) / values.var(correction=0)).item()


def grid(count: int, side: int = 96) -> Int[Tensor, "side side"]:
    """At least ``count`` equal squares."""
    per_side = int(np.ceil(count**0.5))
    index = torch.arange(side) * per_side // side
    return index[:, None] * per_side + index


_done: dict[tuple[Any, ...], dict[str, Any]] = {}


def _runs(run: Run, name: str) -> list[dict[str, Any]]:
    steps = FULL_STEPS if run.full else STEPS
    for seed in range(run.seed, run.seed + SEEDS):
        key = name, seed, steps, run.device
        if key not in _done:
            _done[key] = train_on_brain(run, name, seed, steps)
    return [_done[name, seed, steps, run.device] for seed in range(run.seed, run.seed + SEEDS)]


def train_on_brain(run: Run, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one of ``NETWORKS`` on noisy slices; its mean gain in dB on others."""
    image, tissues = (part.to(run.device) for part in brain())
    if name == "global":
        tissues = torch.zeros_like(tissues)
    torch.manual_seed(seed)
    model = RAT(SMALL)
    NETWORKS[name](model)
    model = model.to(run.device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 1e-3, (0.5, 0.999))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-6)
    loss_of = FocalRegionLoss()
    for _ in run.progress(range(steps), f"{name}, seed {seed}"):
        rows = torch.randint(15, 45, (4,))
        clean, regions = image[rows], tissues[rows]
        loss = loss_of(model(clean + NOISE * torch.randn_like(clean), regions), clean, regions)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    clean, regions = image[50:66:3], tissues[50:66:3]
    noisy = clean + NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).to(
        clean
    )
    with torch.no_grad():
        out = model(noisy, regions)
    errors = [(x - clean).square().mean((1, 2, 3)) for x in (noisy, out)]
    gain = (10 * (errors[0] / errors[1]).log10()).mean().item()
    return {"gain": gain, "slices": {"noisy": noisy[0], "restored": out[0], "clean": clean[0]}}


def _picture(result: dict[str, Any], path: Path) -> Path:
    from image_restoration_kit.evidence import map_row

    return map_row({name: x[0].cpu() for name, x in result["slices"].items()}, path)
