"""Gateformer's identity and claims."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper, standardise
from torch import Tensor, nn

from gateformer import claims
from gateformer.model import Gateformer, GateformerConfig
from gateformer.official import LAYER_NAMES, convert


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Forecast, embeddings, loss, gradients and a few training steps of a recorded network."""
    from forecasting_kit.golden import forecast_case

    given = case.config
    state = {key: value.requires_grad_() for key, value in case.state_dict().items()}
    config, weights = convert(
        state, heads=given["n_heads"], stride=given.get("stride"), dropout=0.0
    )
    model = Gateformer.from_state(config, weights)
    window = standardise(case.inputs()["x"])[0]
    whole, patches = model.embed(window.mT)
    outputs = forecast_case(case, model, state, weights)
    return outputs | {"embedding:global": whole, "embedding:temporal": patches}


def inputs(config: GateformerConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Windows of ``size`` variates (by default 7, as in the ETT sets)."""
    return {"x": torch.randn(batch, config.lookback, size or 7)}


def of_torch_layers(config: GateformerConfig) -> nn.Module:
    """The same function from PyTorch's own encoder layers: the race's other side."""
    model = Gateformer(config)
    model.variate_encoder = _twin(model.variate_encoder, config)
    model.temporal.encoder = _twin(model.temporal.encoder, config)
    return model


def _twin(layers: nn.Sequential, config: GateformerConfig) -> nn.Sequential:
    twins = nn.Sequential()
    for layer in layers:
        twin = nn.TransformerEncoderLayer(
            config.dim, config.heads, config.feed_forward, config.dropout,
            batch_first=True, norm_first=True,
        )  # fmt: skip
        own = layer.state_dict()
        twin.load_state_dict({theirs: own[ours] for theirs, ours in LAYER_NAMES.items()})
        twins.append(twin)
    return twins


def _tiny(**changes: Any) -> GateformerConfig:
    sizes = {"lookback": 24, "horizon": 12, "dim": 32, "feed_forward": 48, "layers": 2, "heads": 4}
    return GateformerConfig(**{**sizes, **changes})


def _stated(id: str, statement: str, says: str, variant: str, file: str) -> Claim:
    return Claim(
        id=id,
        statement=statement,
        source="abstract",
        paper_says=says,
        cost=f"{file} and a GPU",
        command=" && ".join(
            f"python -m gateformer.train {step} --config {variant} --data.root data{extra}"
            for step, extra in (("fit", ""), ("test", " --ckpt_path best"))
        ),
    )


PAPER = Paper(
    slug="gateformer",
    title="Gateformer: Advancing Multivariate Time Series Forecasting through Temporal and "
    "Variate-Wise Attention with Gated Representations",
    authors="Yu-Hsiang Lan, Eric K. Oermann",
    year=2025,
    venue="FMSD workshop at ICML 2025",
    arxiv="2505.00307",
    domain="forecasting",
    summary=(
        "Describes each series by its patches and by its window as a whole, lets a gate mix the "
        "two, lets all series attend to each other, and lets a second gate mix what a series was "
        "with what its neighbours made of it."
    ),
    official="nyuolab/Gateformer@f209962, no licence seen",
    bibtex="""@article{lan2025gateformer,
  title   = {Gateformer: Advancing Multivariate Time Series Forecasting through Temporal and
             Variate-Wise Attention with Gated Representations},
  author  = {Lan, Yu-Hsiang and Oermann, Eric K.},
  journal = {arXiv:2505.00307},
  year    = {2025}
}""",
    models=(Gateformer,),
    inputs=inputs,
    tiny=(_tiny(), _tiny(patch=6, stride=5, layers=1, heads=2, identical_layers=True)),
    parameters={
        "gateformer_etth1_96": 133_344,
        "gateformer_ecl_96": 10_873_952,
        "gateformer_ecl_192": 21_433_536,
        "gateformer_traffic_96": 12_973_152,
        "gateformer_weather_720": 3_435_728,
        "gateformer_solar_96": 14_029_920,
        "gateformer_pems03_12": 10_830_860,
    },
    golden=golden,
    settings=lambda config: {"heads": config.heads, "stride": config.stride},
    benchmark=Benchmark(
        axis="variates",
        sizes=(7, 21, 64, 137, 321),
        variant="gateformer_ecl_96",
        baseline=of_torch_layers,
        baseline_name="PyTorch's own encoder layers",
    ),
    commands={
        "train": "gateformer train --data loads.csv --out model.pt",
        "evaluate": "gateformer evaluate model.pt --data loads.csv",
        "predict the future": "gateformer predict model.pt --data loads.csv --out forecast.csv",
        "what a forecast comes from": "gateformer explain model.pt --data loads.csv",
        "use the authors' weights": "gateformer import checkpoint.pth --out model.pt",
        "train as published": "python -m gateformer.train fit --config gateformer_ecl_96",
    },
    claims=(
        Claim(
            id="beats-baselines",
            statement="Forecasts many related series better than a linear and a naive forecaster.",
            source="abstract (13 other data sets)",
            paper_says="best of all compared (figures not readable)",
            cost="3 min on one CPU core",
            measure=claims.beats_baselines,
            fast=False,
        ),
        Claim(
            id="gates",
            statement="Mixing both descriptions of a series is no worse than the better one alone.",
            source="of this project",
            paper_says="both are needed (figures not readable)",
            cost="12 min on one CPU core",
            measure=claims.gates_help,
            fast=False,
        ),
        Claim(
            id="transfer",
            statement="Trained on some series, it forecasts others.",
            source="README of the authors' code",
            paper_says="transfers better than others (figures not readable)",
            cost="1 min on one CPU core",
            measure=claims.transfer,
            fast=False,
        ),
        Claim(
            id="plug-in",
            statement="The gates make another forecaster, iTransformer, better.",
            source="abstract",
            paper_says="up to 20.7 % better",
            cost="5 min on one CPU core",
            measure=claims.plugged_in,
            fast=False,
        ),
        Claim(
            id="beside-itransformer",
            statement="Forecasts SimBench better than iTransformer of the same width.",
            source="abstract (13 other data sets)",
            paper_says="better than iTransformer (figures not readable)",
            cost="4 min on one CPU core",
            measure=claims.beside_itransformer,
            fast=False,
        ),
        Claim(
            id="gates-reduce",
            statement="Gates at 0 or 1 reduce the network to one path, or to each series alone.",
            source="of this project",
            paper_says="-",
            cost="1 s on a CPU core",
            measure=claims.gates_reduce,
        ),
        Claim(
            id="permutation",
            statement="The forecast does not depend on the order or the number of the variates.",
            source="of this project",
            paper_says="-",
            cost="1 s on a CPU core",
            measure=claims.permutation_equivariance,
        ),
        _stated(
            "table-long",
            "Best of all compared on ETT, Electricity, Exchange, Traffic, Weather and Solar.",
            "state of the art (figures not readable)",
            "gateformer_ecl_96",
            "electricity.csv",
        ),
        _stated(
            "table-pems",
            "Best of all compared on PEMS03, 04, 07 and 08.",
            "state of the art (figures not readable)",
            "gateformer_pems03_12",
            "PEMS03.npz",
        ),
    ),
)
