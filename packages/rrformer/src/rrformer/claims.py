"""Measurements behind the claims of ``paper.py``; those on photographs need the extra ``train``."""

import random
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import Evidence, Run, count_parameters, flops_of
from torch import Tensor, nn

from rrformer.features import WIDTHS
from rrformer.losses import pixel_loss
from rrformer.model import VARIANTS, Hypercolumn, RRFormer, RRFormerConfig

SMALL = RRFormerConfig(
    features=32, dim=24, depths=(2, 2), heads=3, pyramid_features=8, hypercolumn=False
)
"""What a minute on a CPU can train."""
STEPS, FULL_STEPS, SEEDS = 200, 1500, 2
START = 0.4
"""Of the last bias: a channel that starts below 0 everywhere gets no gradient through its ReLU."""
HELD_OUT = ("astronaut.png", "chelsea.png", "coffee.png")
SIDE = 96
NOTE = (
    "Photographs of scikit-image with another one reflected (CEILNet's model); three photographs "
    "are held out, each with the next one's reflection."
)
_done: dict[tuple[Any, ...], list[tuple[float, float]]] = {}


def sizes(run: Run) -> Evidence:
    with torch.device("meta"):
        model = RRFormer(VARIANTS["rrformer"])

    def image() -> dict[str, Tensor]:
        return {"image": torch.empty(1, 3, 64, 64)}

    whole, body = count_parameters(model), count_parameters(model.body)
    costs = {
        name: flops_of(partial(RRFormer, config), image) / 2e9 for name, config in VARIANTS.items()
    }
    return Evidence(
        measured=f"{whole:,} parameters, {body:,} in the body; {costs['rrformer']:.1f} G "
        f"multiply-adds at 64 x 64, {costs['rrformer_released']:.1f} G as released",
        holds=whole == 20_355_130 - 240 * 3 * 9 - 3,
        numbers={"parameters": whole, "body": body, "gmacs": costs},
        note="VGG-19's 20 million weights are frozen and counted apart, its multiply-adds with the "
        "rest. The authors' 20,355,130 hold a last convolution of the body, 6,483 weights, that "
        "nothing uses.",
    )


@torch.no_grad()
def inert_body(run: Run) -> Evidence:
    """What the released code gives does not depend on the transformer at all."""
    torch.manual_seed(run.seed)
    image = torch.rand(1, 3, 64, 64)
    released = RRFormer(replace(SMALL, body="bypass")).eval()
    paper = RRFormer(SMALL).eval()
    paper.load_state_dict(released.state_dict())
    before = released(image), paper(image)
    for model in (released, paper):
        for parameter in model.body.parameters():
            parameter.mul_(1.5)
    changes = [
        (after(image) - b).abs().max().item()
        for after, b in zip((released, paper), before, strict=True)
    ]
    return Evidence(
        measured=f"scaling the body's weights by 1.5 changes the released form by "
        f"{changes[0]:.0e}, the paper's by {changes[1]:.0e}",
        holds=changes[0] == 0 < changes[1],
        numbers={"released": changes[0], "residual": changes[1]},
        note="The authors' code computes the body and returns its input; here body='bypass' does "
        "without it. Trained by that code, the network is a convolutional one.",
    )


@torch.no_grad()
def thin_hypercolumn(run: Run) -> Evidence:
    """Mixing before enlarging against enlarging, stacking and mixing."""
    torch.manual_seed(run.seed)
    side, features = 128, 256
    layer = Hypercolumn(features, (3, *WIDTHS)).double()
    maps: list[Tensor] = [torch.rand(1, 3, side, side).double()]
    maps += [torch.rand(1, w, side // 2**i, side // 2**i).double() for i, w in enumerate(WIDTHS)]
    large = [F.interpolate(x, (side, side), mode="bilinear", align_corners=False) for x in maps]
    expected = F.conv2d(torch.cat(large, 1), layer.weight, layer.bias)
    gap = (layer(maps) - expected).abs().max().item() / expected.std().item()
    products = sum(w * 4.0**-i for i, w in enumerate(WIDTHS)) + 3
    share = products / (3 + sum(WIDTHS))
    return Evidence(
        measured=f"equal to {gap:.0e} std; {share:.0%} of the multiplications, {features} channels "
        f"at full size instead of {3 + sum(WIDTHS)}",
        holds=gap < 1e-12 and share < 0.25,
        numbers={"difference": gap, "share": share},
        note="A 1 x 1 convolution and bilinear enlargement commute.",
    )


def trained(run: Run, body: str) -> list[tuple[float, float]]:
    """Mean PSNR of the blended and of the restored held-out images, for each seed."""
    steps = FULL_STEPS if run.full else STEPS
    key = body, run.seed, steps, run.device
    if key not in _done:
        _done[key] = [short_run(run, body, run.seed + number, steps) for number in range(SEEDS)]
    return _done[key]


def short_run(run: Run, body: str, seed: int, steps: int) -> tuple[float, float]:
    from image_restoration_kit.metrics import psnr, quantise
    from image_restoration_kit.photographs import TRAINING, photograph

    from rrformer.data import blend, crop

    torch.manual_seed(seed)
    random.seed(seed)
    photos = [photograph(name) for name in TRAINING if name not in HELD_OUT]
    model = RRFormer(replace(SMALL, body=body)).to(run.device).train()
    nn.init.constant_(model.get_parameter("decoder.last.bias"), START)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in run.progress(range(steps), f"{body}, seed {seed}"):
        batch = []
        for _ in range(4):
            through, mirrored = (crop(x, 64, "photograph") for x in random.sample(photos, 2))
            batch.append((blend(through, mirrored, random.uniform(2, 5)), through))
        blended, truth = (torch.stack(side).to(run.device) for side in zip(*batch, strict=True))
        loss = pixel_loss(model(blended), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    before, after = [], []
    for name, other in zip(HELD_OUT, HELD_OUT[1:] + HELD_OUT[:1], strict=True):
        through, mirrored = (
            photograph(n)[:, 100 : 100 + SIDE, 100 : 100 + SIDE] for n in (name, other)
        )
        blended = blend(through, mirrored, 3.0)
        with torch.no_grad():
            out = model(blended[None].to(run.device))[0].cpu()
        before.append(psnr(quantise(blended), quantise(through), on_luma=False))
        after.append(psnr(quantise(out), quantise(through), on_luma=False))
    return statistics.mean(before), statistics.mean(after)


def removes(run: Run) -> Evidence:
    found = trained(run, "residual")
    gains = [after - before for before, after in found]
    listed = ", ".join(f"{gain:+.2f}" for gain in gains)
    return Evidence(
        measured=f"PSNR over the blended image {listed} dB on photographs never seen",
        holds=min(gains) > 2,
        numbers={"blended": [b for b, _ in found], "restored": [a for _, a in found]},
        note=f"{NOTE} {FULL_STEPS if run.full else STEPS} steps of 4 crops, {SEEDS} seeds, a small "
        "network without hypercolumn, pixel loss alone. Holds: more than 2 dB under every seed.",
    )


def body_helps(run: Run) -> Evidence:
    residual, bypass = (
        [after for _, after in trained(run, body)] for body in ("residual", "bypass")
    )
    gain = statistics.mean(residual) - statistics.mean(bypass)
    return Evidence(
        measured=f"{statistics.mean(residual):.2f} dB with the body, {statistics.mean(bypass):.2f} "
        f"as released: {gain:+.2f}",
        holds=gain > 0.1,
        numbers={"residual": residual, "bypass": bypass},
        note=f"{NOTE} Equal steps, {SEEDS} seeds. Holds: more than 0.1 dB better.",
    )


@torch.no_grad()
def tiles(run: Run) -> Evidence:
    from image_restoration_kit.enlarge import Tiling, enlarge
    from image_restoration_kit.evidence import line_plot
    from image_restoration_kit.photographs import photograph

    torch.manual_seed(run.seed)
    model = RRFormer(SMALL).eval().to(run.device)
    image = photograph("motorcycle_left.png")[None, :, :320, :448]
    whole = model(image.to(run.device)).cpu()
    errors = {}
    for halo in (0, 32, 64, 96):
        tiled = enlarge(model, image, tiling=Tiling(tile=128, halo=halo))
        errors[halo] = (tiled - whole).abs().max().item() / whole.std().item()
    path = Path(run.output / "tiles.png")
    with line_plot(path, "halo / pixels", "largest difference / std of the output") as axes:
        axes.semilogy(list(errors), [max(error, 1e-8) for error in errors.values()], marker="o")
    return Evidence(
        measured="largest difference from the whole image, in std: "
        + ", ".join(f"{error:.1e} with a halo of {halo}" for halo, error in errors.items()),
        holds=errors[96] < 1e-3 and errors[96] <= errors[0],
        numbers={"difference": errors},
        figures=(path,),
        note="Random weights. Poolings, windows and tiles are multiples of 32, so that they lie as "
        "in the whole image; what lies beyond the halo is not seen.",
    )
