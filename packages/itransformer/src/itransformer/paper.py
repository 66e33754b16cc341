"""iTransformer's identity and claims."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from attention_core import Benchmark, Claim, GoldenCase, Paper
from torch import Tensor

from itransformer import claims
from itransformer.attention import MaterialisedAttention
from itransformer.model import EncoderLayer, ITransformer, ITransformerConfig
from itransformer.official import convert

BACKBONES = {"full": "full", "flow": "flow", "informer": "prob", "reformer": "lsh"}
"""What the golden cases call the attentions."""


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case: a network's outputs, or a step of the data protocol."""
    if case.name.startswith("protocol"):
        from forecasting_kit import protocol_case

        return protocol_case(case)
    expected = case.record["outputs"]
    kinds = [name.split(":")[1] for name in expected if name.startswith("forecast:")]
    outputs: dict[str, Any] = {}
    for kind in kinds or [None]:
        found = golden_forecast(case, BACKBONES[kind] if kind else None)
        outputs |= {f"{name}:{kind}" if kind else name: value for name, value in found.items()}
    return {name: outputs[name] for name in expected if name in outputs}


def golden_forecast(case: GoldenCase, attention: str | None) -> dict[str, Any]:
    """Forecast, losses, gradients, attention maps and a few training steps of one network."""
    from forecasting_kit.golden import forecast_case

    given, drawn = case.config, case.inputs()
    marks = drawn.get("x_mark")
    state = {key: value.requires_grad_() for key, value in case.state_dict().items()}
    config, weights = convert(
        state,
        heads=given["n_heads"],
        use_norm=given["use_norm"],
        marks=0 if marks is None else marks.shape[-1],
        activation=given["activation"],
        attention=attention,
        factor=given["factor"],
        bucket_size=given.get("bucket_size", 4),
        hashes=given.get("n_hashes", 4),
        dropout=0.0,
    )
    model = ITransformer.from_state(config, weights)
    prefix = {"prob": "key_sample.", "lsh": "rotations."}.get(config.attention, "-")
    count = sum(name.startswith(prefix) for name in drawn)
    draws = [drawn[f"{prefix}{layer}"] for layer in range(count)] or None
    outputs = {}
    if config.attention == "full":
        maps = model.attention_maps(drawn["x"], marks)
        outputs = {f"attention.{layer}": weights for layer, weights in enumerate(maps)}
    return outputs | forecast_case(
        case, model, state, weights, lambda inputs: (inputs["x"], marks, draws)
    )


def inputs(config: ITransformerConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Windows of ``size`` variates (by default 7, as in the ETT sets)."""
    found = {"x": torch.randn(batch, config.lookback, size or 7)}
    if config.marks:
        found["marks"] = torch.rand(batch, config.lookback, config.marks) - 0.5
    return found


def _tiny(**changes: Any) -> ITransformerConfig:
    sizes = {"lookback": 24, "horizon": 12, "dim": 32, "feed_forward": 48, "layers": 2, "heads": 4}
    return ITransformerConfig(**{**sizes, **changes})


def materialised(config: ITransformerConfig) -> ITransformer:
    """The network with full attention whose weights stand in memory: the race's other side."""
    model = ITransformer(replace(config, attention="full"))
    for layer in model.layers:
        cast(EncoderLayer, layer).attention = MaterialisedAttention(model.config)
    return model


def settings(config: ITransformerConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {
        "heads": config.heads,
        "use_norm": config.use_norm,
        "marks": config.marks,
        "attention": config.attention,
    }


PARAMETERS = {
    "itransformer_ecl_96": 4_833_888,
    "itransformer_traffic_96": 6_411_872,
    "itransformer_weather_96": 4_833_888,
    "itransformer_solar_96": 3_255_904,
    "itransformer_etth1_96": 841_568,
    "itransformer_etth1_336": 3_379_024,
    "itransformer_etth2_96": 224_224,
    "itransformer_ettm1_96": 224_224,
    "itransformer_ettm2_96": 224_224,
    "itransformer_exchange_96": 224_224,
    "itransformer_pems03_12": 6_368_780,
    "itransformer_pems04_12": 25_320_460,
    "itransformer_pems07_12": 3_212_812,
    "itransformer_pems08_48": 6_387_248,
}


def _published(data: str, figures: str, variant: str, file: str) -> Claim:
    return Claim(
        id=f"table-{data.lower()}",
        statement=f"Forecasts {data} better than RLinear, PatchTST and DLinear.",
        source="Table 1",
        paper_says=figures,
        cost=f"{file} and a GPU",
        command=" && ".join(
            f"python -m itransformer.train {step} --config {variant} --data.root data{extra}"
            for step, extra in (("fit", ""), ("test", " --ckpt_path best"))
        ),
    )


PAPER = Paper(
    slug="itransformer",
    title="iTransformer: Inverted Transformers Are Effective for Time Series Forecasting",
    authors="Yong Liu, Tengge Hu, Haoran Zhang, Haixu Wu, Shiyu Wang, Lintao Ma, Mingsheng Long",
    year=2023,
    venue="ICLR 2024 (spotlight)",
    arxiv="2310.06625",
    domain="forecasting",
    summary=(
        "Turns the Transformer around for multivariate series: the whole lookback window of a "
        "variate is one token, attention mixes variates and the feed-forward network learns a "
        "representation of each series."
    ),
    official="thuml/iTransformer@c2426e6, MIT",
    bibtex="""@inproceedings{liu2024itransformer,
  title     = {iTransformer: Inverted Transformers Are Effective for Time Series Forecasting},
  author    = {Liu, Yong and Hu, Tengge and Zhang, Haoran and Wu, Haixu and Wang, Shiyu and
               Ma, Lintao and Long, Mingsheng},
  booktitle = {International Conference on Learning Representations},
  year      = {2024}
}""",
    models=(ITransformer,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(use_norm=False, marks=0, activation="relu", heads=3),
        *(_tiny(attention=attention) for attention in ("flow", "prob", "lsh")),
    ),
    parameters=PARAMETERS,
    golden=golden,
    settings=settings,
    benchmark=Benchmark(
        axis="variates",
        sizes=(7, 21, 64, 137, 321, 862),
        variant="itransformer_ecl_96",
        baseline=materialised,
        baseline_name="full attention with its weights in memory",
    ),
    commands={
        "train": "itransformer train --data loads.csv --out model.pt",
        "evaluate": "itransformer evaluate model.pt --data loads.csv",
        "predict the future": "itransformer predict model.pt --data loads.csv --out forecast.csv",
        "use the authors' weights": "itransformer import checkpoint.pth --out model.pt",
        "train as published": "python -m itransformer.train fit --config itransformer_ecl_96",
    },
    claims=(
        Claim(
            id="beats-baselines",
            statement="Forecasts many related series better than a linear and a naive forecaster.",
            source="Table 1",
            paper_says="MSE .178 against RLinear's .219 on ECL",
            cost="2 min on two CPU cores",
            measure=claims.beats_baselines,
            fast=False,
        ),
        Claim(
            id="unseen-variates",
            statement="Trained on a fifth of the variates, it forecasts all of them.",
            source="Fig. 5",
            paper_says="MSE +.048 (ECL), +.003 (Traffic), +.024 (Solar)",
            cost="2 min on two CPU cores",
            measure=claims.unseen_variates,
            fast=False,
        ),
        Claim(
            id="efficient-training",
            statement="Training each batch on a fifth of the variates keeps the accuracy.",
            source="Sec. 4.3, Fig. 8",
            paper_says="MSE stays, memory falls (Traffic 7.50 to 1.28 GB)",
            cost="2 min on two CPU cores",
            measure=claims.efficient_training,
            fast=False,
        ),
        Claim(
            id="longer-lookback",
            statement="A longer lookback lowers the error.",
            source="Fig. 6",
            paper_says="ECL .188 (48), .148 (96), .130 (192), .129 (336)",
            cost="2 min on two CPU cores",
            measure=claims.longer_lookback,
            fast=False,
        ),
        Claim(
            id="attention-simbench",
            statement="Attention between variates lowers the error on SimBench.",
            source="Table 3 (other data)",
            paper_says="MSE .178 with, .193 without attention (ECL)",
            cost="2 min on two CPU cores",
            measure=claims.attention_on_simbench,
            fast=False,
        ),
        Claim(
            id="attention-coupled",
            statement="Attention between variates finds what no series shows alone.",
            source="Sec. 4.3",
            paper_says="attention maps follow the series' correlations",
            cost="30 s on two CPU cores",
            measure=claims.attention_on_coupled_series,
            fast=False,
        ),
        Claim(
            id="permutation",
            statement="The forecast does not depend on the order or the number of the variates.",
            source="Sec. 3.1",
            paper_says="no position embedding is needed",
            cost="1 s on two CPU cores",
            measure=claims.permutation_equivariance,
        ),
        Claim(
            id="flow-linear",
            statement="With flow attention the cost is linear in the number of variates.",
            source="Sec. 4.1, Fig. 8",
            paper_says="Traffic: 1.66 GB and 91 ms instead of 7.50 GB and 265 ms",
            cost="1 s on two CPU cores",
            measure=claims.flow_is_linear,
        ),
        _published("ECL", "MSE .178, MAE .270 over four horizons", "itransformer_ecl_96",
                   "electricity.csv"),
        _published("Traffic", "MSE .428, MAE .282 over four horizons", "itransformer_traffic_96",
                   "traffic.csv"),
        _published("ETT", "MSE .383, MAE .399 over four sets and horizons",
                   "itransformer_etth1_96", "ETTh1.csv"),
        _published("PEMS", "MSE .119, MAE .218 over four sets and horizons",
                   "itransformer_pems03_12", "PEMS03.npz"),
    ),
)  # fmt: skip
