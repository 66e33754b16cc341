"""The paper's identity, and its claims as code."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import Benchmark, Claim, Evidence, GoldenCase, Paper, Run
from torch import Tensor, nn

from sret.data import planted_patterns
from sret.model import Sret, SretConfig

PUBLISHED_RUN = "python -m sret.train fit --config sret_s --trainer.devices 8"


def inputs(config: SretConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Arguments of ``forward``; ``size`` is the number of tokens."""
    return {"x": torch.randn(batch, size or 16, config.channels)}


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Runs a golden case."""
    model = Sret.from_official(case.state_dict(), heads=case.config["heads"]).to(case.dtype)
    return {"logits": model(case.inputs()["x"])}


class MeanAndMap(nn.Module):
    """A linear map of the mean token."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.map = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x.mean(1))


class Plain(nn.Module):
    """The same network out of torch's own encoder layers."""

    def __init__(self, config: SretConfig) -> None:
        super().__init__()
        self.embedding = nn.Linear(config.channels, config.dim)
        layer = nn.TransformerEncoderLayer(
            config.dim,
            config.heads,
            config.mlp_ratio * config.dim,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.head = nn.Linear(config.dim, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x)).mean(1))


def finds_the_token(run: Run) -> Evidence:
    """Trains the network and a linear map of the mean token on the same batches."""
    config = SretConfig()
    rival = MeanAndMap(config.channels, config.classes)
    x, labels = planted_patterns(1024, seed=run.seed + 10_000)
    rows = []
    for name, model in (("sret", Sret(config)), ("mean and map", rival)):
        model.to(run.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in run.progress(range(1500 if run.full else 150), name):
            batch, target = (t.to(run.device) for t in planted_patterns(64, seed=run.seed + step))
            optimizer.zero_grad()
            F.cross_entropy(model(batch), target).backward()
            optimizer.step()
        with torch.no_grad():
            right = model.eval()(x.to(run.device)).argmax(-1).cpu() == labels
        rows.append([name, right.double().mean().item()])
    ours, theirs = (accuracy for _, accuracy in rows)
    return Evidence(
        measured=f"accuracy {ours:.1%}, mean and map {theirs:.1%}",
        holds=ours > theirs + 0.02,
        numbers={"table": {"columns": ["method", "accuracy"], "rows": rows}},
        note="planted patterns, 1024 sets to test; one seed",
    )


PAPER = Paper(
    slug="sret",
    title="Sliced Recursive Transformer",
    authors="the authors",
    year=2026,
    venue="preprint",
    arxiv="",
    domain="vision",
    summary="A small Transformer that classifies a set of tokens.",
    official="no code of the authors yet; the golden case is written by this project",
    bibtex="@misc{sret, title={Sliced Recursive Transformer}, year={2026}}",
    models=(Sret,),
    inputs=inputs,
    tiny=(SretConfig(channels=3, dim=8, depth=1, heads=2, classes=3),),
    parameters={"sret_s": 17572, "sret_b": 134852},
    golden=golden,
    settings=lambda config: {"heads": config.heads},
    benchmark=Benchmark(
        axis="tokens",
        sizes=(64, 256, 1024),
        variant="sret_s",
        baseline=Plain,
        baseline_name="torch's encoder layers",
    ),
    commands={
        "train for seconds": "python -m sret.train fit --config smoke",
        "the published run": PUBLISHED_RUN,
        "predict": "sret predict tokens.npy --weights runs/smoke/model",
    },
    claims=(
        Claim(
            id="finds-the-token",
            statement="It finds the one token that matters, which the mean of all hides.",
            source="-",
            paper_says="-",
            cost="5 s on two CPU cores",
            measure=finds_the_token,
        ),
        Claim(
            id="large-scale",
            statement="The published run reaches the published accuracy.",
            source="-",
            paper_says="-",
            cost="8 GPUs",
            command=PUBLISHED_RUN,
        ),
    ),
)
