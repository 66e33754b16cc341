"""Measurements behind the claims of ``paper.py`` (needs the extra ``data``, and ``simbench``)."""

import statistics
from typing import Any

import torch
from attention_core import Evidence, Run
from torch import nn

from gateformer.model import Gate, Gateformer, GateformerConfig
from gateformer.plugin import Gated

SMALL = GateformerConfig(dim=64, feed_forward=64, layers=1, heads=4)
"""The network of every SimBench claim: the published size of the ETTh1 run."""
COLUMNS = 40
"""Evenly spaced SimBench columns."""
SURE = 40.0
"""A gate's logit that rounds to a share of 0 or 1 in float32."""


def pin(gate: Gate, share: float) -> None:
    """Fix a gate at 0 or 1 for good: what it does not let through is out of the network."""
    for layer in (gate.first, gate.second):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.constant_(gate.first.bias, SURE if share else -SURE)
    gate.requires_grad_(False)


def without(part: str, config: GateformerConfig = SMALL) -> Gateformer:
    """A network with one part out of play: ``patches``, ``window``, ``neighbours`` or none."""
    model = Gateformer(config)
    if part == "patches":
        pin(model.embedding_gate, 1)
    elif part == "window":
        pin(model.embedding_gate, 0)
    elif part == "neighbours":
        pin(model.interaction_gate, 1)
    return model


def simbench(run: Run, horizon: int, variates: int = COLUMNS) -> Any:
    from forecasting_kit import studies

    return studies.simbench(96, horizon, run.device, variates, None)


def fitted(run: Run, model: nn.Module, splits: Any, epochs: int, what: str, **options: Any) -> Any:
    from forecasting_kit.studies import trained

    return trained(run, model, splits, epochs, what, **options)


def beats_baselines(run: Run) -> Evidence:
    from forecasting_kit import baselines, evaluate
    from forecasting_kit.plots import plot_errors, save_figure
    from forecasting_kit.studies import SIMBENCH

    epochs = 8 if run.full else 4
    splits = simbench(run, 96)
    torch.manual_seed(run.seed)
    errors = fitted(run, Gateformer(SMALL), splits, epochs, "Gateformer")
    found = {"Gateformer": errors}
    found |= {n: evaluate(m, splits["test"]) for n, m in baselines(splits.train, "h").items()}
    linear, naive = found["linear"].mse, found["seasonal-naive"].mse
    rows = [
        [name, f"{e.mse:.3f}", f"{e.mae:.3f}", f"{e.median_mse:.3f}"]
        for name, e in sorted(found.items(), key=lambda item: item[1].mse)
    ]
    columns = ["forecaster", "MSE", "MAE", "median MSE of variates"]
    return Evidence(
        measured=f"MSE {errors.mse:.3f}, linear {linear:.3f}, daily-naive {naive:.3f}",
        holds=errors.mse < linear < naive,
        numbers={
            **{f"mse:{name}": e.mse for name, e in found.items()},
            "table": {"columns": columns, "rows": rows},
        },
        figures=(save_figure(plot_errors(errors, splits.table.names), run.output / "errors.png"),),
        note=f"{SIMBENCH} {COLUMNS} of them, horizon 96, {epochs} epochs, one seed; the linear "
        "forecaster is the least-squares solution.",
    )


def gates_help(run: Run) -> Evidence:
    """The network whole and with parts pinned out, at equal steps."""
    from forecasting_kit.studies import SIMBENCH

    epochs, seeds = (4 if run.full else 2), range(run.seed, run.seed + 3)
    splits = simbench(run, 96)
    parts = ("nothing", "patches", "window", "neighbours")
    errors: dict[str, list[float]] = {part: [] for part in parts}
    for seed in seeds:
        for part in parts:
            torch.manual_seed(seed)
            what = f"without {part}, seed {seed}"
            model = without(part)
            errors[part].append(fitted(run, model, splits, epochs, what, seed=seed).mse)
    means = {part: statistics.mean(values) for part, values in errors.items()}
    noise = max(statistics.stdev(values) for values in errors.values())
    rival = min(means["patches"], means["window"])
    listed = ", ".join(f"without {part} {mse:.3f}" for part, mse in means.items())
    return Evidence(
        measured=f"MSE {listed}; largest deviation over seeds {noise:.3f}",
        holds=means["nothing"] <= rival + noise,
        numbers={f"mse:{part}": values for part, values in errors.items()},
        note=f"{SIMBENCH} {COLUMNS} of them, horizon 96, {epochs} epochs, {len(seeds)} seeds; a "
        "gate pinned at 0 or 1 takes a part out. Holds: the whole network is not worse than the "
        "better of the two single paths by more than the deviation over seeds.",
    )


def transfer(run: Run) -> Evidence:
    from forecasting_kit import SeasonalNaive, evaluate
    from forecasting_kit.studies import SIMBENCH

    epochs = 6 if run.full else 3
    splits = simbench(run, 96)
    seen, other = list(range(0, COLUMNS, 2)), list(range(1, COLUMNS, 2))
    torch.manual_seed(run.seed)
    model = Gateformer(SMALL)
    half = {"train": splits.train.columns(seen), "val": splits["val"].columns(seen)}
    test = splits["test"].columns(other)
    errors = fitted(run, model, splits, epochs, "half of the columns", test=test, **half)
    naive = evaluate(SeasonalNaive(96, 24), test)
    return Evidence(
        measured=f"MSE {errors.mse:.3f} on columns never trained on, daily-naive {naive.mse:.3f}",
        holds=errors.mse < 0.9 * naive.mse,
        numbers={"mse:unseen": errors.mse, "mse:naive": naive.mse},
        note=f"{SIMBENCH} Trained on {len(seen)} columns for {epochs} epochs, scored on "
        f"{len(other)} others, horizon 96, one seed. Holds: 10 % below daily-naive.",
    )


def plugged_in(run: Run) -> Evidence:
    """ITransformer with the gates and without, at equal steps."""
    from forecasting_kit.studies import SIMBENCH, published_network

    network: Any = published_network("itransformer")
    epochs, seeds = (4 if run.full else 2), range(run.seed, run.seed + 3)
    splits = simbench(run, 96)
    config = {"dim": 64, "feed_forward": 64, "layers": 1, "heads": 4, "marks": 0}
    errors: dict[str, list[float]] = {"plain": [], "gated": []}
    for seed in seeds:
        for name, found in errors.items():
            torch.manual_seed(seed)
            base = network(network.config_class(**config))
            model = base if name == "plain" else Gated(base)
            found.append(fitted(run, model, splits, epochs, f"{name}, seed {seed}", seed=seed).mse)
    plain, gated = (statistics.mean(values) for values in errors.values())
    noise = max(statistics.stdev(values) for values in errors.values())
    return Evidence(
        measured=f"MSE {gated:.3f} with the gates, {plain:.3f} without: {gated / plain - 1:+.1%}",
        holds=gated < plain - noise,
        numbers={f"mse:{name}": values for name, values in errors.items()},
        note=f"{SIMBENCH} {COLUMNS} of them, horizon 96, {epochs} epochs, {len(seeds)} seeds, "
        "iTransformer of the same width and depth. Holds: better by more than the deviation over "
        f"seeds ({noise:.3f}).",
    )


def beside_itransformer(run: Run) -> Evidence:
    """Gateformer and iTransformer on every SimBench column, at equal epochs."""
    from forecasting_kit.studies import SIMBENCH, published_network

    network = published_network("itransformer")
    epochs = 4 if run.full else 2
    splits = simbench(run, 96, 138)
    sizes = {"dim": 64, "feed_forward": 64, "layers": 1, "heads": 4}
    torch.manual_seed(run.seed)
    ours = fitted(run, Gateformer(SMALL), splits, epochs, "Gateformer")
    torch.manual_seed(run.seed)
    theirs = network(network.config_class(**sizes, marks=0))
    other = fitted(run, theirs, splits, epochs, "iTransformer")
    return Evidence(
        measured=f"MSE {ours.mse:.3f}, iTransformer {other.mse:.3f}",
        holds=ours.mse < other.mse,
        numbers={"mse:gateformer": ours.mse, "mse:itransformer": other.mse},
        note=f"{SIMBENCH} Horizon 96, {epochs} epochs, one seed, equal width and depth, no time "
        "features. Holds: lower.",
    )


@torch.no_grad()
def gates_reduce(run: Run) -> Evidence:
    """Pinned gates against the network with the part cut out of the code."""
    torch.manual_seed(run.seed)
    x = torch.randn(2, 96, 9).to(run.device)
    gaps = {}
    for part in ("patches", "window", "neighbours"):
        model = without(part).eval().to(run.device)
        series = x - x.mean(1, keepdim=True)
        deviation = (series.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        whole, patches = model.embed((series / deviation).mT)
        own = {"patches": whole, "window": patches}.get(part, model.embedding_gate(whole, patches))
        if part == "neighbours":
            mixed = own
        else:
            mixed = model.interaction_gate(own, model.variate_encoder(own))
        expected = model.projection(mixed).mT * deviation + x.mean(1, keepdim=True)
        gaps[part] = (model(x) - expected).abs().max().item()
    return Evidence(
        measured=f"largest difference {max(gaps.values()):.0e} to the network without the part",
        holds=max(gaps.values()) < 1e-4,
        numbers={f"difference:{part}": gap for part, gap in gaps.items()},
        note="Gates pinned at 0 or 1 leave the whole window, the patches, or the series alone.",
    )


@torch.no_grad()
def permutation_equivariance(run: Run) -> Evidence:
    torch.manual_seed(run.seed)
    model = Gateformer(SMALL).eval().to(run.device)
    x = torch.randn(2, 96, 37).to(run.device)
    order = torch.randperm(37)
    gap = (model(x[..., order]) - model(x)[..., order]).abs().max().item()
    return Evidence(
        measured=f"largest difference {gap:.0e} after permuting 37 variates",
        holds=gap < 1e-4 and model(x[..., :5]).shape[-1] == 5,
        numbers={"difference": gap},
    )
