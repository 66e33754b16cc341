"""LHF's identity and claims."""

from typing import Any

import torch
from attention_core import Benchmark, Claim, Paper
from torch import Tensor

from lhf import claims
from lhf.golden import run_golden
from lhf.model import (
    AD,
    DPT,
    ADConfig,
    ContinuousAD,
    ContinuousADConfig,
    DPTConfig,
    GridConfig,
    InContextLearner,
    Outputs,
)
from lhf.trunk import TrunkConfig


def inputs(config: TrunkConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """A context of ``size`` transitions (by default the training window's) and a query."""
    past = size or config.transitions - 1
    if isinstance(config, ContinuousADConfig):
        made = {
            "query_states": torch.randn(batch, config.observation),
            "states": torch.randn(batch, past, config.observation),
            "actions": torch.randn(batch, past, config.action),
            "rewards": torch.rand(batch, past),
            "next_states": torch.randn(batch, past, config.observation),
        }
        asked = torch.randn(batch, config.action)
    elif isinstance(config, GridConfig):
        made = {
            "query_states": torch.randint(config.size, (batch, 2)).float(),
            "states": torch.randint(config.size, (batch, past, 2)).float(),
            "actions": torch.randint(config.actions, (batch, past)),
            "rewards": torch.randint(2, (batch, past)).float(),
            "next_states": torch.randint(config.size, (batch, past, 2)).float(),
        }
        asked = torch.randint(config.actions, (batch,))
    else:
        raise TypeError(f"{type(config).__name__}: not a configuration of this paper")
    return made | ({"query_actions": asked} if config.dynamics else {})


class EveryToken(torch.nn.Module):
    """The same learner, its last block run for every token, as the authors' code does."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.model = (DPT if isinstance(config, DPTConfig) else AD)(config)

    def forward(self, query_states: Tensor, **context: Tensor) -> Outputs:
        model: InContextLearner = self.model
        context.pop("query_actions", None)
        tokens = model.window(model.embed(**context), model.embed_query(query_states))
        return {"action": model.head_action(model.trunk(tokens))[:, -1]}


def settings(config: TrunkConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    told: dict[str, Any] = {"heads": config.heads, "transitions": config.transitions}
    told |= {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
    if isinstance(config, DPTConfig) and not config.dynamics:
        told["size"] = config.size
    return told


_TINY: dict[str, Any] = {"transitions": 7, "dim": 16, "layers": 2, "heads": 2, "inner": 24}


def _published(name: str, statement: str, figure: str, env: str, variant: str) -> Claim:
    return Claim(
        id=name,
        statement=statement,
        source="main results",
        paper_says=figure,
        cost="collection of minutes, then a GPU for hours, 3 seeds with and without the filter",
        command=f"lhf collect --env {env} --out {env}.h5 && "
        f"python -m lhf.train fit --config {variant}  # and --data.filter none",
    )


PAPER = Paper(
    slug="lhf",
    title="Filtering Learning Histories Enhances In-Context Reinforcement Learning",
    authors="Weiqin Chen, Xinjie Zhang, Dharmashankar Subramanian, Santiago Paternain",
    year=2025,
    venue="preprint",
    arxiv="2505.15143",
    domain="in-context RL",
    summary=(
        "An in-context reinforcement learner imitates the learning histories that it was trained "
        "on, the bad ones too. LHF scores each history by how much it improves and how steadily, "
        "and resamples the data set by the scores before any training."
    ),
    official="none published; the learners are those of jaehyeon-son/dicp@e36b3f7, no licence",
    bibtex="""@article{chen2025filtering,
  title   = {Filtering Learning Histories Enhances In-Context Reinforcement Learning},
  author  = {Chen, Weiqin and Zhang, Xinjie and Subramanian, Dharmashankar and
             Paternain, Santiago},
  journal = {arXiv preprint arXiv:2505.15143},
  year    = {2025}
}""",
    models=(AD, DPT, ContinuousAD),
    inputs=inputs,
    tiny=(
        ADConfig(**_TINY, size=5),
        ADConfig(**_TINY, size=5, dynamics=True),
        DPTConfig(**_TINY, size=5),
        DPTConfig(**_TINY, size=5, dynamics=True),
        ContinuousADConfig(**_TINY, observation=3, action=2),
        # Its dynamics predict one number a sample, which has no spread to compare by: own tests.
        ContinuousADConfig(**_TINY, observation=3, action=2, learn_variance=False),
    ),
    parameters={
        "ad_darkroom": 69_413,
        "dicp_dpt_darkroom": 69_816,
        "dicp_ad_metaworld": 267_145,
    },
    golden=run_golden,
    settings=settings,
    benchmark=Benchmark(
        axis="transitions",
        sizes=(20, 80, 200, 1000),
        variant="ad_darkroom",
        baseline=EveryToken,
        baseline_name="the last block run for every token",
    ),
    gradient_free={
        r"embed_query_state\.(weight|bias)": "DPT's checkpoints hold it, nothing reads it",
        r"embed_query_action\.weight": "DPT without dynamics does not read it",
    },
    commands={
        "collect histories": "lhf collect --env darkroom --out darkroom.h5",
        "score them": "lhf score darkroom.h5 --plot scores.png",
        "filter them": "lhf filter darkroom.h5 --stability 1 --out filtered.h5",
        "train": "lhf train --backbone ad --data filtered.h5 --out runs/ad",
        "evaluate in context": "lhf evaluate runs/ad/model --env darkroom --episodes 50",
        "train as published": "python -m lhf.train fit --config ad_darkroom",
    },
    claims=(
        Claim(
            id="filter",
            statement="The filter drops random agents and raises the data's late returns.",
            source="Sec. 3, noisy data",
            paper_says="-",
            cost="2 s on one CPU core",
            measure=claims.filter_properties,
        ),
        Claim(
            id="noisy-dpt",
            statement="On histories of which 30 % are random agents', filtering helps DPT.",
            source="noisy data",
            paper_says="DPT, 9 x 9 Darkroom: +21.4 %",
            cost="10 min of one CPU core, 3 seeds",
            measure=claims.noisy_dpt,
            fast=False,
        ),
        Claim(
            id="clean-data",
            statement="Histories of PPO without noise hardly change: they differ little in a task.",
            source="main results (data only)",
            paper_says="DPT on clean 9 x 9 Darkroom: +3.5 %",
            cost="1 min on one CPU core",
            measure=claims.clean_data,
            fast=False,
        ),
        Claim(
            id="batched-ppo",
            statement="PPO of all tasks at once learns as Stable-Baselines3's does.",
            source="of this project",
            paper_says="-",
            cost="4 min on one CPU core",
            measure=claims.batched_ppo,
            fast=False,
        ),
        Claim(
            id="steps",
            statement="A darkroom steps at least 1e8 times a second on one core.",
            source="of this project",
            paper_says="-",
            cost="2 s on one CPU core",
            measure=claims.environment_steps,
            fast=False,
        ),
        Claim(
            id="rolling",
            statement="Kept keys and values make evaluation in context ten times as fast.",
            source="of this project",
            paper_says="-",
            cost="30 s on one CPU core",
            measure=claims.rolling_context,
            fast=False,
        ),
        _published("ad-darkroom", "Filtering improves AD on Darkroom.", "+25.1 %", "darkroom",
                   "ad_darkroom"),
        _published("dicp-darkroom", "Filtering improves DICP on Darkroom.", "+15.2 %", "darkroom",
                   "dicp_ad_darkroom"),
        _published("dpt-darkroom", "Filtering improves DPT on Darkroom.", "+3.5 %", "darkroom",
                   "dpt_darkroom"),
        _published("permuted", "Filtering improves AD on Darkroom-Permuted.", "+5.0 %",
                   "darkroom_permuted", "ad_permuted"),
        _published("large", "Filtering improves DPT on Darkroom-Large.", "+26.1 %",
                   "darkroom_large", "dpt_large"),
        _published("key-to-door", "Filtering improves DPT on Dark Key-to-Door.", "+15.5 %",
                   "key_to_door", "dpt_key_to_door"),
        Claim(
            id="metaworld",
            statement="Filtering improves AD on Meta-World's ML1 tasks.",
            source="Meta-World results",
            paper_says="PPO source: +11.7 % on average",
            cost="a cluster for the histories (1e6 steps x 50 tasks), a GPU for a day",
            command="lhf collect --env reach-v3 --out history_reach-v3.h5 && "
            "python -m lhf.train fit --config ad_metaworld",
        ),
    ),
)  # fmt: skip
