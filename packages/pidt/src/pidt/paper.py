"""PIDT's identity and claims."""

from typing import Any

import torch
from attention_core import Benchmark, Claim, Paper
from torch import Tensor

from pidt import claims
from pidt.golden import run_golden
from pidt.model import PIDT, PIDTConfig


def inputs(config: PIDTConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Histories of ``size`` steps (by default 6)."""
    steps = size or min(6, config.steps)
    return {
        "states": torch.randn(batch, steps, config.state_dim),
        "actions": torch.randn(batch, steps, config.actions),
        "returns_to_go": torch.rand(batch, steps, 1),
        "timesteps": torch.arange(steps).expand(batch, -1),
    }


def settings(config: PIDTConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    return {
        "heads": config.heads,
        "activation": config.activation,
        "action_tanh": config.action_tanh,
        "norm_eps": config.norm_eps,
    }


def _tiny(**changes: Any) -> PIDTConfig:
    sizes = {"state_dim": 12, "actions": 5, "dim": 16, "layers": 2, "heads": 2, "steps": 8}
    return PIDTConfig(**{**sizes, "positions": 4, **changes})


OURS = "of this project: the paper's tables could not be read"

PAPER = Paper(
    slug="pidt",
    title="Exploring a Physics-Informed Decision Transformer for Distribution System Restoration: "
    "Methodology and Performance Analysis",
    authors="Hong Zhao, Jin Wei-Kocsis, Adel Heidari Akhijahani, Karen L. Butler-Purry",
    year=2024,
    venue="preprint",
    arxiv="2407.00808",
    domain="power restoration",
    summary=(
        "After a blackout, a Decision Transformer chooses which switch of a distribution feeder to "
        "close next, and physics keeps its plans feasible. The paper's reward and mechanism could "
        "not be read; environment, reward and the four ways of physics are of this project."
    ),
    official="no code was published; parity is with transformers' DecisionTransformerModel, "
    "Apache-2.0",
    bibtex="""@article{zhao2024pidt,
  title   = {Exploring a Physics-Informed Decision Transformer for Distribution System Restoration:
             Methodology and Performance Analysis},
  author  = {Zhao, Hong and Wei-Kocsis, Jin and Heidari Akhijahani, Adel and
             Butler-Purry, Karen L.},
  journal = {arXiv:2407.00808},
  year    = {2024}
}""",
    models=(PIDT,),
    inputs=inputs,
    tiny=(
        _tiny(),
        _tiny(action_tanh=True, activation="gelu_new", inner=24, mask=False),
        _tiny(penalty=0.5, feature=True, context=True),
    ),
    parameters={"pidt_33": 758_764, "dt_33": 758_764},
    golden=run_golden,
    settings=settings,
    benchmark=Benchmark(axis="steps", sizes=(4, 8, 16, 32), variant="pidt_33"),
    commands={
        "plan one outage": "pidt restore case33bw --policy optimal --picture plan.png",
        "record restorations": "pidt collect case33bw --out data.npz",
        "train": "pidt train data.npz --out model",
        "measure on new outages": "pidt evaluate model case33bw",
        "train on GPUs": "python -m pidt.train fit --config pidt_33",
    },
    claims=(
        Claim(
            id="unseen-outages",
            statement="On outages it was not trained on, PIDT restores at least what greedy and a "
            "Decision Transformer without physics do, with no infeasible action.",
            source=OURS,
            paper_says="PIDT restores more than the methods it is compared with (abstract)",
            cost="2 min on one CPU core; full 10 min",
            measure=claims.unseen_outages,
            fast=False,
        ),
        Claim(
            id="physics",
            statement="Each way to let physics in makes infeasible actions fewer; the mask leaves "
            "none.",
            source=OURS,
            paper_says="physics keeps plans feasible (abstract); how could not be read",
            cost="3 min on one CPU core; full 15 min",
            measure=claims.ways_of_physics,
            fast=False,
        ),
        Claim(
            id="reinforcement-learning",
            statement="PIDT restores more than DQN and PPO do.",
            source=OURS,
            paper_says="better than reinforcement learning (abstract)",
            cost="4 min on one CPU core; full 20 min",
            measure=claims.reinforcement_learning,
            fast=False,
        ),
        Claim(
            id="always-optimal",
            statement="PIDT reaches the exact optimum in every unseen outage.",
            source="follow-up (arXiv 2508.06634), which denies it",
            paper_says="PIDT does not always reach the optimum",
            cost="with unseen-outages, seconds",
            measure=claims.always_optimal,
            fast=False,
        ),
        Claim(
            id="conditioning",
            statement="A higher target return gives not less restored load.",
            source="the Decision Transformer's idea",
            paper_says="-",
            cost="with unseen-outages, seconds",
            measure=claims.return_conditioning,
            fast=False,
        ),
        Claim(
            id="decision-time",
            statement="A decision takes a hundredth of a search that is driven by pandapower.",
            source="of this project",
            paper_says="-",
            cost="10 s on one CPU core",
            measure=claims.decision_time,
            fast=False,
        ),
        Claim(
            id="power-flows",
            statement="One core solves 100,000 power flows of a tree a second.",
            source="of this project",
            paper_says="-",
            cost="3 s on one CPU core",
            measure=claims.power_flows,
            fast=False,
        ),
        Claim(
            id="base-case",
            statement="The sweep gives the published loss and lowest voltage of the 33-bus feeder.",
            source="of this project; Baran & Wu 1989",
            paper_says="202.677 kW, 0.91309 p.u. at bus 18",
            cost="1 s on one CPU core",
            measure=claims.base_case,
        ),
        Claim(
            id="not-trivial",
            statement="On the reference outage greedy restores less than the optimum.",
            source="of this project",
            paper_says="-",
            cost="1 s on one CPU core",
            measure=claims.reference_outage,
        ),
        Claim(
            id="imitation",
            statement="Trained on the optimal trajectory of one outage, the model repeats it.",
            source="of this project",
            paper_says="-",
            cost="2 s on one CPU core",
            measure=claims.imitates_the_optimum,
        ),
        Claim(
            id="tables",
            statement="PIDT's figures on the paper's feeders.",
            source="result tables, which could not be read",
            paper_says="could not be read",
            cost="the paper's feeders and figures",
            command="pidt evaluate model NETWORK.json --scenario scenario.json",
        ),
    ),
)
