"""The paper's identity and claims, one of each fate."""

from collections.abc import Mapping
from typing import Any

import torch
from attention_core import Benchmark, Claim, Evidence, GoldenCase, Paper, Run
from torch import Tensor, nn

from toy.model import Toy, ToyConfig


def _count(run: Run) -> int:
    """How often a claim was measured, this time included."""
    tally = run.output / "tally"
    tally.write_text((tally.read_text() if tally.exists() else "") + "x")
    return len(tally.read_text())


def linear(run: Run) -> Evidence:
    picture = run.output / "linear.png"
    picture.write_bytes(b"")
    for _ in run.progress(range(3), "measuring"):
        pass
    return Evidence(
        measured=f"exponent 1.0, seed {run.seed}",
        holds=True,
        numbers={
            "times": _count(run),
            "tensor": torch.ones(2),
            "lost": float("nan"),
            "table": {
                "title": "errors",
                "columns": ["method", "MSE"],
                "rows": [["toy", 0.123456], ["naive", 2]],
            },
        },
        figures=(picture,),
        note="on made data",
    )


def better(run: Run) -> Evidence:
    return Evidence(measured=f"1.2 against 1.1 on try {_count(run)}", holds=False)


def shaky(run: Run) -> Evidence:
    if _count(run) == 1:
        raise RuntimeError("no [luck] today")
    return Evidence(measured="luck", holds=True)


def inputs(config: ToyConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    return {"x": torch.randn(batch, size or 4, config.dim)}


def golden(case: GoldenCase) -> Mapping[str, Any]:
    model = Toy.from_official(case.state_dict(), gain=case.config["gain"])
    return {"y": model(case.inputs()["x"])}


def baseline(config: ToyConfig) -> nn.Module:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(config.dim, 64), nn.Linear(64, config.dim))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    return Plain()


PAPER = Paper(
    slug="toy",
    title="Toy: Two Linear Layers [are all]",
    authors="A. Nobody",
    year=2026,
    venue="Nowhere",
    arxiv="2601.00001",
    domain="testing",
    summary="Adds nothing.",
    official="nobody/toy@0000000, MIT",
    bibtex="@misc{toy, title={Toy}}",
    models=(Toy,),
    inputs=inputs,
    tiny=(ToyConfig(dim=2, hidden=3),),
    parameters={"toy_s": 8 * 16 + 16 + 16 * 8 + 8},
    golden=golden,
    settings=lambda config: {"gain": config.gain},
    benchmark=Benchmark(
        axis="tokens",
        sizes=(16, 32),
        variant="toy_s",
        usual=16,
        baseline=baseline,
        baseline_name="a wide linear map",
    ),
    commands={"predict": "toy predict file.csv"},
    claims=(
        Claim(
            id="linear-cost",
            statement="The cost is linear in the tokens.",
            source="Sec. 3",
            paper_says="linear",
            cost="1 s",
            measure=linear,
        ),
        Claim(
            id="better",
            statement="It is better than the naive method.",
            source="Table 1",
            paper_says="0.9 < 1.1",
            cost="1 s",
            measure=better,
        ),
        Claim(
            id="shaky",
            statement="It is lucky.",
            source="Sec. 5",
            paper_says="always",
            cost="1 s",
            measure=shaky,
        ),
        Claim(
            id="imagenet",
            statement="It is good at large scale.",
            source="Table 9",
            paper_says="84 %",
            cost="8 GPUs, 3 days",
            command="python -m toy.train fit --config toy_l --trainer.devices 8",
        ),
    ),
)
