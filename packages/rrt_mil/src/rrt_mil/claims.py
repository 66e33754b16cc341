"""Measurements behind the claims of ``paper.py`` (needs the extra ``claims``)."""

import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from attention_core import Evidence, Run, growth_exponent
from torch import Tensor, nn

from rrt_mil.encoder import R2T, R2TConfig
from rrt_mil.metrics import auc
from rrt_mil.model import R2TMIL, R2TMILConfig
from rrt_mil.reference import literal
from rrt_mil.simulate import TASKS, digit_pools, tissue_bags

SMALL = R2TMILConfig(
    features=64,
    dim=128,
    encoder=R2TConfig(dim=128, heads=4, crmsa_heads=4, epeg_k=3, crmsa_k=1, shortcut=True),
)
"""R²T-MIL at the size of the digit tasks."""
PLAIN = replace(SMALL, encoder=None)
"""AB-MIL."""
CLAM: dict[str, Any] = {"attention_dim": 64, "attention_bias": True, "gated": True}
AGGREGATORS: Mapping[str, dict[str, Any]] = {
    "AB-MIL": {},
    "gated AB-MIL": {"gated": True},
    "CLAM-SB": {"aggregator": "clam_sb", **CLAM},
    "CLAM-MB": {"aggregator": "clam_mb", **CLAM},
    "DSMIL": {"aggregator": "dsmil"},
    "Mean-MIL": {"aggregator": "mean"},
    "Max-MIL": {"aggregator": "max"},
}

DIGITS = (
    "Bags of 100 real digits (scikit-learn's scans behind a frozen random layer), training and 200 "
    "test bags from disjoint scans; Adam 1e-3, width 128 instead of 512."
)
INSTANCES, TEST_BAGS = 100, 200


class Budget(NamedTuple):
    """Of training on a task."""

    bags: int = 300
    epochs: int = 10
    batch: int = 4


BUDGETS = defaultdict(Budget, company=Budget(bags=600, epochs=20, batch=8))


@functools.lru_cache(maxsize=8)
def task_bags(task: str, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test bags of a task."""
    if task in ("density", "intact"):
        return (
            tissue_bags(task, "train", BUDGETS[task].bags, 2 * seed + 11),
            tissue_bags(task, "test", TEST_BAGS, 2 * seed + 12),
        )
    train, test = digit_pools(seed)
    make = TASKS[task]
    return (
        make(train, BUDGETS[task].bags, INSTANCES, 2 * seed + 11),
        make(test, TEST_BAGS, INSTANCES, 2 * seed + 12),
    )


@functools.lru_cache(maxsize=64)
def trained(config: R2TMILConfig, task: str, seed: int, device: str) -> R2TMIL:
    """A classifier of a digit task; trained once per process."""
    x, labels = (part.to(device) for part in task_bags(task, seed)[0])
    torch.manual_seed(seed)
    model = R2TMIL(config).to(device).train()
    fit(model, x, labels, BUDGETS[task], seed)
    return model.eval()


def fit(model: R2TMIL, x: Tensor, labels: Tensor, budget: Budget, seed: int) -> None:
    """Adam on batches of bags of one length, in place."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, 1e-3, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(budget.epochs):
        for batch in torch.randperm(len(x), generator=generator).split(budget.batch):
            optimizer.zero_grad()
            model.loss(x[batch], labels[batch]).backward()
            optimizer.step()


@torch.no_grad()
def area(model: R2TMIL, x: Tensor, labels: Tensor) -> float:
    """AUC on bags of one length."""
    device = next(model.parameters()).device
    chance = model(x.to(device)).softmax(-1)[:, 1]
    return auc((labels == 1).numpy(), chance.cpu().numpy())


def seeds(run: Run, full: int = 3) -> range:
    """Of the quick and the full budget."""
    return range(run.seed, run.seed + (full if run.full else 1))


def compare(run: Run, task: str, configs: Mapping[str, R2TMILConfig]) -> dict[str, list[float]]:
    """Test AUC of each configuration, seed by seed."""
    jobs = [(name, seed) for seed in seeds(run) for name in configs]
    found: dict[str, list[float]] = {name: [] for name in configs}
    for name, seed in run.progress(jobs, f"{task} bags"):
        model = trained(configs[name], task, seed, run.device)
        found[name].append(area(model, *task_bags(task, seed)[1]))
    return found


def evidence(run: Run, found: Mapping[str, list[float]], holds: bool, note: str = "") -> Evidence:
    """AUCs as the table shows them."""
    means = {name: float(np.mean(values)) for name, values in found.items()}
    rows = [
        [name, f"{means[name]:.3f}", ", ".join(f"{value:.3f}" for value in values)]
        for name, values in found.items()
    ]
    count = len(seeds(run))
    numbers = {f"auc:{name}": value for name, value in means.items()}
    table = {"columns": ["model", "test AUC", "by seed"], "rows": rows}
    return Evidence(
        measured="AUC " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()),
        holds=holds,
        numbers={**numbers, "seeds": count, "table": table},
        note=f"{DIGITS} {count} seed{'s' if count > 1 else ''}. {note}".strip(),
    )


def content(run: Run) -> Evidence:
    found = compare(run, "content", {"AB-MIL": PLAIN, "R²T-MIL": SMALL})
    holds = min(min(values) for values in found.values()) >= 0.95
    return evidence(run, found, holds, "Positive bags hold five 9s, negative ones none.")


def context(run: Run) -> Evidence:
    found = compare(run, "context", {"AB-MIL": PLAIN, "R²T-MIL": SMALL})
    plain, ours = (float(np.mean(values)) for values in found.values())
    holds = plain < 0.60 and ours > 0.85 and ours - plain >= 0.30
    note = "Every bag holds five 3s and five 5s; positive if each 5 directly follows a 3."
    return evidence(run, found, holds, note)


def file_order(run: Run) -> Evidence:
    found: dict[str, list[float]] = {"as trained": [], "shuffled": []}
    for seed in run.progress(seeds(run), "context bags"):
        model = trained(SMALL, "context", seed, run.device)
        x, labels = task_bags("context", seed)[1]
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(INSTANCES, generator=generator) for _ in x]
        found["as trained"].append(area(model, x, labels))
        shuffled = torch.stack([bag[order] for bag, order in zip(x, orders, strict=True)])
        found["shuffled"].append(area(model, shuffled, labels))
    kept, lost = (float(np.mean(values)) for values in found.values())
    return evidence(run, found, kept > 0.85 and abs(lost - 0.5) < 0.1, "Test bags shuffled.")


def parts(run: Run) -> Evidence:
    """Each part on the task that asks for it, with and without it."""
    encoder = replace(cast(R2TConfig, SMALL.encoder), shortcut=False)
    regional = replace(encoder, epeg="none", cr_msa=False)
    encoded = replace(encoder, cr_msa=False)
    pairs: dict[str, tuple[str, tuple[R2TConfig | None, R2TConfig | None]]] = {
        "R-MSA": ("context", (None, regional)),
        "EPEG": ("order", (regional, encoded)),
        "CR-MSA": ("company", (encoded, encoder)),
    }
    found: dict[str, list[float]] = {}
    for part, (task, forms) in pairs.items():
        names = (f"without {part}", f"with {part}")
        configs = [replace(SMALL, encoder=form) for form in forms]
        found |= compare(run, task, dict(zip(names, configs, strict=True)))
    gains = {
        part: float(np.mean(found[f"with {part}"]) - np.mean(found[f"without {part}"]))
        for part in pairs
    }
    shown = evidence(
        run,
        found,
        min(gains.values()) > 0.2,
        "Tasks: does a 5 stand beside a 3 (R-MSA), does the 3 come first (EPEG), does a bag hold "
        "both (CR-MSA; 600 bags, 20 epochs). Each part is added to those before it.",
    )
    gained = ", ".join(f"{part} {gain:+.2f}" for part, gain in gains.items())
    return replace(shown, measured=f"AUC gained: {gained}")


def aggregators(run: Run) -> Evidence:
    configs = {}
    for name, settings in AGGREGATORS.items():
        configs[name] = replace(PLAIN, **settings)
        configs[f"{name} + R²T"] = replace(SMALL, **settings)
    found = compare(run, "context", configs)
    gains = {
        name: float(np.mean(found[f"{name} + R²T"]) - np.mean(found[name])) for name in AGGREGATORS
    }
    shown = evidence(run, found, min(gains.values()) > 0)
    gained = ", ".join(f"{name} {gain:+.2f}" for name, gain in gains.items())
    return replace(shown, measured=f"AUC gained: {gained}")


def fused_epeg(run: Run) -> Evidence:
    """The fused forms against the literal ones in float64, and what either keeps for backward."""
    torch.manual_seed(run.seed)
    ours = R2T.from_variant("r2t_nsclc_r50").double().eval()
    theirs = R2T.from_variant("r2t_nsclc_r50").double().eval()
    theirs.load_state_dict(ours.state_dict())
    literal(theirs)
    gaps = []
    for instances in run.progress((65, 1000, 2000), "bag sizes"):
        x = torch.randn(1, instances, 512, dtype=torch.double)
        with torch.no_grad():
            expected = theirs(x)
            gaps.append(((ours(x) - expected).abs().max() / expected.std()).item())
    sizes = (16000, 32000)
    kept = {name: [kept_bytes(m.float(), n) for n in sizes] for name, m in
            (("fused", ours), ("literal", theirs))}  # fmt: skip
    growth = {name: growth_exponent(sizes, costs) for name, costs in kept.items()}
    rows = [
        [n, f"{kept['fused'][i] / 2**20:.0f}", f"{kept['literal'][i] / 2**20:.0f}"]
        for i, n in enumerate(sizes)
    ]
    columns = ["instances", "fused: MiB kept for backward", "literal"]
    return Evidence(
        measured=f"equal to {max(gaps):.0e} std; memory grows as N^{growth['fused']:.2f} "
        f"instead of N^{growth['literal']:.2f}",
        holds=max(gaps) < 1e-12 and growth["fused"] < 1.1 < 1.3 < growth["literal"],
        numbers={"gap": max(gaps), "growth": growth, "table": {"columns": columns, "rows": rows}},
        note="One R²T layer (NSCLC-R50 sizes); float64 for the comparison, float32 for the memory.",
    )


def kept_bytes(model: nn.Module, instances: int) -> int:
    """Bytes of distinct storage that a training step keeps between forward and backward."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(torch.randn(1, instances, 512, requires_grad=True))
        total = sum(storages.values())
    del out
    return total


def silent_crmsa(run: Run) -> Evidence:
    """CR-MSA on small bags and on larger ones."""
    torch.manual_seed(run.seed)
    model = R2T.from_variant("r2t").eval()
    cross = model.cross
    assert cross is not None
    sizes = (1, 7, 64, 65, 200)
    with torch.no_grad():
        added = [
            cross.attention(cross.norm(torch.randn(1, n, 512)), None).abs().max() for n in sizes
        ]
    rows = [[n, f"{value.item():.3g}"] for n, value in zip(sizes, added, strict=True)]
    small = max(value.item() for n, value in zip(sizes, added, strict=True) if n <= 64)
    large = min(value.item() for n, value in zip(sizes, added, strict=True) if n > 64)
    return Evidence(
        measured=f"it adds at most {small:.0g} to bags of up to 64 instances, {large:.2g} to 65",
        holds=small == 0 < large,
        numbers={"table": {"columns": ["instances", "largest value CR-MSA adds"], "rows": rows}},
        note="A region of one instance has the min-max weight 0, so that its share is 0.",
    )


def tissue(run: Run) -> Evidence:
    forms: dict[str, R2TMILConfig] = {"AB-MIL": PLAIN, "R²T-MIL": SMALL}
    if run.full:
        encoder = cast(R2TConfig, SMALL.encoder)
        forms = {
            "Mean-MIL": replace(PLAIN, aggregator="mean"),
            "AB-MIL": PLAIN,
            "R-MSA": replace(SMALL, encoder=replace(encoder, epeg="none", cr_msa=False)),
            "R-MSA + EPEG": replace(SMALL, encoder=replace(encoder, cr_msa=False)),
            "R²T-MIL": SMALL,
        }
    found = {task: compare(run, task, forms) for task in ("density", "intact")}
    merged = {
        f"{task}: {name}": values
        for task, scores in found.items()
        for name, values in scores.items()
    }
    means = {name: float(np.mean(values)) for name, values in merged.items()}
    holds = (
        min(means["density: AB-MIL"], means["density: R²T-MIL"]) > 0.9
        and means["intact: AB-MIL"] < 0.6 < 0.8 < means["intact: R²T-MIL"]
    )
    shown = evidence(run, merged, holds)
    return replace(
        shown,
        note="Windows of 12 x 12 tiles (8 pixels each, behind a frozen random layer) of "
        "scikit-image's immunohistochemical section: 300 from its left 60 % to train, 200 from "
        "the rest to test. "
        "density: more stain than the median; intact: tiles in place or shuffled. It shows the "
        f"mechanism on one section, no clinical figure. {len(seeds(run))} seed(s).",
    )
