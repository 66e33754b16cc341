"""Measurements behind the claims of ``paper.py`` (needs the extra ``data``, and ``simbench``)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from attention_core import Evidence, Run, count_flops, growth_exponent
from torch import nn

from itransformer.attention import ATTENTIONS
from itransformer.model import ChannelIndependent, ITransformer, ITransformerConfig

SMALL = ITransformerConfig(dim=128, feed_forward=128, layers=2)
"""The network of every SimBench claim: the published size of the ETT runs."""
SHARE = 0.2
"""Of the variates, in the claims on training with some of them."""
LAG = 8
"""Steps by which the simulated followers follow."""

_full_models: dict[tuple[Any, ...], tuple[ITransformer, Any]] = {}


def full_model(run: Run, horizon: int = 96) -> tuple[ITransformer, Any]:
    """The network trained on every variate, and its test errors; trained once per process."""
    from forecasting_kit.studies import simbench, trained

    epochs = 5 if run.full else 2
    key = (horizon, epochs, run.seed, run.device)
    if key not in _full_models:
        torch.manual_seed(run.seed)
        model = ITransformer(replace(SMALL, horizon=horizon))
        splits = simbench(96, horizon, run.device)
        _full_models[key] = model, trained(run, model, splits, epochs, "all variates")
    return _full_models[key]


def beats_baselines(run: Run) -> Evidence:
    from forecasting_kit import baselines, evaluate
    from forecasting_kit.plots import plot_attention, plot_errors, save_figure
    from forecasting_kit.studies import SIMBENCH, simbench

    horizons = (24, 96) if run.full else (96,)
    rows, numbers, holds = [], {}, True
    for horizon in horizons:
        splits = simbench(96, horizon, run.device)
        model, errors = full_model(run, horizon)
        found = {"iTransformer": errors}
        found |= {
            name: evaluate(baseline, splits["test"])
            for name, baseline in baselines(splits.train, "h").items()
        }
        linear, naive = found["linear"].mse, found["seasonal-naive"].mse
        holds &= errors.mse < linear < naive
        for name, error in sorted(found.items(), key=lambda item: item[1].mse):
            rows.append(
                [horizon, name, f"{error.mse:.3f}", f"{error.mae:.3f}", f"{error.median_mse:.3f}"]
            )
            numbers[f"mse:{name}:{horizon}"] = error.mse
    names = splits.table.names
    figures = (
        save_figure(plot_errors(errors, names), run.output / "errors.png"),
        forecast_figure(model, splits, run.output / "forecast.png"),
        save_figure(
            plot_attention(variate_attention(model, splits), names), run.output / "attention.png"
        ),
    )
    columns = ["horizon", "forecaster", "MSE", "MAE", "median MSE of variates"]
    return Evidence(
        measured=f"MSE {errors.mse:.3f}, linear {linear:.3f}, daily-naive {naive:.3f}",
        holds=holds,
        numbers={**numbers, "table": {"columns": columns, "rows": rows}},
        figures=figures,
        note=f"{SIMBENCH} Horizon {horizons[-1]}, {5 if run.full else 2} epochs, one seed; the "
        "linear forecaster is the least-squares solution.",
    )


@torch.no_grad()
def variate_attention(model: ITransformer, splits: Any, windows: int = 16) -> Any:
    """Attention between variates in the last layer, averaged over heads and test windows."""
    step = max(1, len(splits.test) // windows)
    batch = splits.test[torch.arange(0, len(splits.test), step)]
    variates = batch.x.shape[-1]
    weights = model.eval().attention_maps(batch.x, batch.past_marks)[-1]
    return weights.mean((0, 1))[:variates, :variates]


@torch.no_grad()
def forecast_figure(model: ITransformer, splits: Any, path: Path) -> Path:
    """Four variates of the last test window: history, truth and forecast in their own units."""
    from forecasting_kit import to_frame
    from forecasting_kit.plots import plot_forecast, save_figure

    lookback, horizon = model.config.lookback, model.config.horizon
    batch = splits.test[[len(splits.test) - 1]]
    forecast = model.eval()(batch.x, batch.past_marks)[0].cpu().double().numpy()
    times, names = splits.table.times[-lookback - horizon :], splits.table.names
    past, future = times[:lookback], times[lookback:]

    def frame(values: Any, at: Any) -> Any:
        return to_frame(splits.scaler.inverse(values), names, at, splits.table.layout)

    figure = plot_forecast(
        frame(batch.x[0].cpu().double().numpy(), past),
        frame(forecast, future),
        truth=frame(batch.y[0].cpu().double().numpy(), future),
        columns=[names[int(i * len(names) / 4)] for i in range(4)],
    )
    return save_figure(figure, path)


def unseen_variates(run: Run) -> Evidence:
    from forecasting_kit import SeasonalNaive, evaluate
    from forecasting_kit.studies import SIMBENCH, simbench, trained

    splits = simbench(96, 96, run.device)
    _, everything = full_model(run)
    generator = torch.Generator().manual_seed(run.seed)
    order = torch.randperm(splits.train.variates, generator=generator)
    seen = order[: round(SHARE * len(order))].sort().values
    torch.manual_seed(run.seed)
    model = ITransformer(SMALL)
    subsets = {
        "train": splits.train.columns(seen.tolist()),
        "val": splits["val"].columns(seen.tolist()),
    }
    epochs = 10 if run.full else 5
    some = trained(run, model, splits, epochs, f"{len(seen)} of {len(order)} variates", **subsets)
    naive = evaluate(SeasonalNaive(96, 24), splits["test"])
    increase = some.mse - everything.mse
    return Evidence(
        measured=f"MSE {some.mse:.3f} against {everything.mse:.3f} trained on all: {increase:+.3f}",
        holds=some.mse < naive.mse and increase < 0.15 * everything.mse,
        numbers={"mse:some": some.mse, "mse:all": everything.mse, "mse:naive": naive.mse},
        note=f"{SIMBENCH} {len(seen)} random variates for {epochs} epochs. "
        "Holds: below daily-naive and within 15 % of training on all.",
    )


def efficient_training(run: Run) -> Evidence:
    from forecasting_kit.studies import SIMBENCH, simbench, trained

    splits = simbench(96, 96, run.device)
    _, everything = full_model(run)
    variates = round(SHARE * splits.train.variates)
    torch.manual_seed(run.seed)
    model, epochs = ITransformer(SMALL), 10 if run.full else 5
    fresh = trained(
        run, model, splits, epochs, f"{variates} fresh variates", variates_per_batch=variates
    )
    increase = fresh.mse / everything.mse - 1
    return Evidence(
        measured=f"MSE {fresh.mse:.3f} against {everything.mse:.3f} with all: {increase:+.1%}",
        holds=increase < 0.05,
        numbers={"mse:efficient": fresh.mse, "mse:all": everything.mse, "variates": variates},
        note=f"{SIMBENCH} {variates} fresh random variates a batch, {epochs} epochs. "
        "Holds: at most 5 % worse.",
    )


def longer_lookback(run: Run) -> Evidence:
    from forecasting_kit.studies import SIMBENCH, simbench, trained

    variates, epochs = (None, 3) if run.full else (27, 3)
    found = {}
    for lookback in (48, 96, 168, 336):
        torch.manual_seed(run.seed)
        model = ITransformer(replace(SMALL, lookback=lookback))
        splits = simbench(lookback, 96, run.device, variates)
        found[lookback] = trained(run, model, splits, epochs, f"lookback {lookback}").mse
    listed = ", ".join(f"{lookback}: {mse:.3f}" for lookback, mse in found.items())
    return Evidence(
        measured=f"MSE by lookback {listed}",
        holds=found[336] < found[96] < found[48],
        numbers={f"mse:{lookback}": mse for lookback, mse in found.items()},
        note=f"{SIMBENCH} {variates or 138} variates, {epochs} epochs, one seed. "
        "Holds: 336 better than 96 better than 48.",
    )


def attention_on_simbench(run: Run) -> Evidence:
    from forecasting_kit.studies import SIMBENCH, simbench, trained

    splits = simbench(96, 96, run.device)
    _, together = full_model(run)
    torch.manual_seed(run.seed)
    model = ChannelIndependent(ITransformer(replace(SMALL, marks=0)))
    alone = trained(
        run,
        model,
        splits,
        5 if run.full else 2,
        "one token per forward",
        train=without_marks(splits.train),
        val=without_marks(splits.val),
        test=without_marks(splits.test),
    )
    return Evidence(
        measured=f"MSE {together.mse:.3f} with attention, {alone.mse:.3f} without",
        holds=together.mse < 0.98 * alone.mse,
        numbers={"mse:together": together.mse, "mse:alone": alone.mse},
        note=f"{SIMBENCH} The same network with one variate per forward pass and no time marks, "
        "same epochs, one seed. Holds: at least 2 % lower, since less may be chance.",
    )


def without_marks(windows: Any) -> Any:
    return type(windows)(windows.values, windows.lookback, windows.horizon)


def coupled_errors(run: Run, seed: int, *, rows: int = 2000, epochs: int = 8) -> dict[str, float]:
    """Test MSE on simulated leader and followers, with attention between them and without."""
    from forecasting_kit import leader_and_followers, prepare
    from forecasting_kit.studies import trained

    config = ITransformerConfig(
        lookback=3 * LAG, horizon=LAG, dim=64, feed_forward=64, layers=2, heads=4, marks=0,
        dropout=0.0, use_norm=False,
    )  # fmt: skip
    table = leader_and_followers(rows, 5, lag=LAG, seed=seed)
    splits = prepare(table, config.lookback, config.horizon, marks=None, device=run.device)
    options = {"lr": 2e-3, "schedule": "constant", "seed": seed}
    errors = {}
    for name in ("together", "alone"):
        torch.manual_seed(seed)
        model: nn.Module = ITransformer(config)
        if name == "alone":
            model = ChannelIndependent(model)
        errors[name] = trained(run, model, splits, epochs, f"{name}, seed {seed}", **options).mse
    return errors


def attention_on_coupled_series(run: Run) -> Evidence:
    seeds = range(run.seed, run.seed + (5 if run.full else 3))
    errors = [coupled_errors(run, seed) for seed in seeds]
    worst = max(error["together"] for error in errors)
    best = min(error["alone"] for error in errors)
    return Evidence(
        measured=f"MSE at most {worst:.2f} with attention, at least {best:.2f} without",
        holds=worst < 0.7 * best,
        numbers={name: [error[name] for error in errors] for name in errors[0]},
        note=f"Simulated: a leader of white noise and five series that repeat it {LAG} steps later "
        f"with noise, so that no series can be forecast from itself; {len(seeds)} seeds. "
        "Holds: the worst seed with attention is 30 % below the best without.",
    )


def permutation_equivariance(run: Run) -> Evidence:
    model = ITransformer.from_variant("itransformer_ecl_96").eval().to(run.device)
    generator = torch.Generator().manual_seed(run.seed)
    x = torch.randn(2, 96, 37, generator=generator).to(run.device)
    marks = (torch.rand(2, 96, 4, generator=generator) - 0.5).to(run.device)
    order = torch.randperm(37, generator=generator)
    with torch.no_grad():
        gap = (model(x[..., order], marks) - model(x, marks)[..., order]).abs().max().item()
        fewer = model(x[..., :5], marks).shape[-1]
    return Evidence(
        measured=f"largest difference {gap:.0e} after permuting 37 variates",
        holds=gap < 1e-5 and fewer == 5,
        numbers={"difference": gap},
    )


def flow_is_linear(run: Run) -> Evidence:
    from forecasting_kit.plots import save_figure
    from matplotlib.figure import Figure

    sizes = (64, 128, 256, 512, 1024, 2048)
    costs: dict[str, list[int]] = {}
    for attention in ("full", "flow", "prob", "lsh"):
        config = ITransformerConfig(layers=1, dim=64, feed_forward=64, attention=attention, marks=0)
        with torch.device("meta"):
            layer = ATTENTIONS[attention](config)
            costs[attention] = [count_flops(layer, torch.empty(1, n, 64)) for n in sizes]
    growth = {name: growth_exponent(sizes[-3:], cost[-3:]) for name, cost in costs.items()}
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, cost in costs.items():
        axes.loglog(sizes, cost, marker="o", label=f"{name}: N^{growth[name]:.2f}")
    axes.set(xlabel="variates N", ylabel="FLOPs of one attention layer")
    axes.legend()
    listed = ", ".join(f"{name} N^{value:.2f}" for name, value in growth.items())
    return Evidence(
        measured=f"FLOPs grow as {listed}",
        holds=growth["flow"] < 1.05 < 1.5 < growth["full"],
        numbers={"growth": growth, "flops": costs, "variates": sizes},
        figures=(save_figure(figure, run.output / "flops.png"),),
        note="Counted, not timed: matrix products of one attention layer of width 64.",
    )
