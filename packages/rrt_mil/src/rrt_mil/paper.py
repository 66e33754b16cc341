"""R²T-MIL's identity and claims."""

from typing import Any

import torch
from attention_core import Benchmark, Claim, Paper
from torch import Tensor

from rrt_mil import claims
from rrt_mil.encoder import R2T, R2TConfig
from rrt_mil.golden import run_golden
from rrt_mil.model import R2TMIL, R2TMILConfig
from rrt_mil.reference import literal_mil


def inputs(config: R2TConfig | R2TMILConfig, size: int | None, batch: int) -> dict[str, Tensor]:
    """Bags of ``size`` instances (by default 100)."""
    width = config.dim if isinstance(config, R2TConfig) else config.features
    return {"x": torch.randn(batch, size or 100, width)}


def settings(config: R2TConfig | R2TMILConfig) -> dict[str, Any]:
    """What ``from_official`` must be told of a variant."""
    if isinstance(config, R2TConfig):
        return {
            "heads": config.heads,
            "crmsa_heads": config.crmsa_heads,
            "regions": config.regions,
            "shortcut": config.shortcut,
        }
    told: dict[str, Any] = {
        "activation": config.activation,
        "attention_activation": config.attention_activation,
    }
    if config.aggregator == "max":
        told["aggregator"] = "max"
    return told | {"encoder": settings(config.encoder) if config.encoder else None}


def _tiny(**changes: Any) -> R2TMILConfig:
    encoder = _tiny_encoder(**changes.pop("encoder", {}))
    sizes: dict[str, Any] = {"features": 24, "classes": 3, "dim": 32, "attention_dim": 8}
    return R2TMILConfig(**{**sizes, "encoder": encoder, **changes})


def _tiny_encoder(**changes: Any) -> R2TConfig:
    sizes: dict[str, Any] = {"dim": 32, "heads": 4, "crmsa_heads": 2, "epeg_k": 5, "regions": 4}
    return R2TConfig(**{**sizes, **changes})


def _published(
    name: str, statement: str, source: str, figures: str, variant: str, data: str, options: str
) -> Claim:
    return Claim(
        id=name,
        statement=statement,
        source=source,
        paper_says=figures,
        cost=f"{data} and a GPU for a day",
        command=f"rrt-mil train features labels.csv --variant {variant} {options} "
        f"--out runs/{name}",
    )


PAPER = Paper(
    slug="rrt_mil",
    title="Feature Re-Embedding: Towards Foundation Model-Level Performance in Computational "
    "Pathology",
    authors="Wenhao Tang, Fengtao Zhou, Sheng Huang, Xiang Zhu, Yi Zhang, Bo Liu",
    year=2024,
    venue="CVPR 2024",
    arxiv="2402.17228",
    domain="pathology",
    summary=(
        "A small regional Transformer, R²T, re-embeds the frozen features of a slide's patches "
        "before any multiple-instance aggregator: attention within regions with a convolutional "
        "position encoding of the logits, then attention across regions."
    ),
    official="DearCaat/RRT-MIL@7ecbdfb, no licence",
    bibtex="""@inproceedings{tang2024feature,
  title     = {Feature Re-Embedding: Towards Foundation Model-Level Performance in Computational
               Pathology},
  author    = {Tang, Wenhao and Zhou, Fengtao and Huang, Sheng and Zhu, Xiang and Zhang, Yi and
               Liu, Bo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {11343--11352},
  year      = {2024}
}""",
    models=(R2T, R2TMIL),
    inputs=inputs,
    tiny=(
        _tiny_encoder(),
        _tiny_encoder(crmsa_mlp=True, shortcut=True, mlp_ratio=2.0, layers=3, position="ppeg"),
        _tiny_encoder(epeg_2d=True, epeg_k=3, region_size=4),
        _tiny_encoder(epeg="value", epeg_k=3, position="peg", position_first=True),
        _tiny_encoder(epeg="none", least_instances=200),
        _tiny(),
        _tiny(gated=True, attention_bias=True, attention_activation="relu"),
        _tiny(encoder={"epeg": "output", "epeg_2d": True, "epeg_k": 3}, activation="gelu"),
        _tiny(aggregator="clam_sb", gated=True, attention_bias=True),
        _tiny(aggregator="clam_mb", gated=True, attention_bias=True),
        _tiny(aggregator="dsmil"),
        _tiny(aggregator="ibmil", confounders=4),
        _tiny(aggregator="mean"),
        _tiny(aggregator="max"),
    ),
    parameters={
        "r2t": 2_105_984,
        "rrtmil": 2_697_474,
        "rrtmil_c16_r50": 2_696_450,
        "rrtmil_c16_plip": 2_435_282,
        "rrtmil_nsclc_r50": 2_698_546,
        "rrtmil_nsclc_plip": 2_499_698,
        "rrtmil_brca_r50": 2_697_490,
        "rrtmil_brca_plip": 2_434_306,
        "r2t_abmil": 2_697_603,
        "r2t_clam_sb": 2_896_775,
        "r2t_dsmil": 2_699_524,
    },
    golden=run_golden,
    settings=settings,
    benchmark=Benchmark(
        axis="instances",
        sizes=(1000, 3000, 10000),
        variant="rrtmil_c16_r50",
        baseline=literal_mil,
        baseline_name="attention as the equations are written, its logits in memory",
    ),
    gradient_free={
        r"instance_(classifier|encoder)": "trained by the loss on instances of CLAM and DSMIL",
    },
    commands={
        "train and test five folds": "rrt-mil train features labels.csv --out runs/slides",
        "measure a model": "rrt-mil evaluate runs/slides/fold_0/model features labels.csv",
        "label slides, with attention maps": "rrt-mil predict runs/slides/fold_0/model "
        "features --out predictions.csv --maps maps",
        "use the authors' weights": "rrt-mil import fold_0_model_best_auc.pt "
        "--variant rrtmil_c16_r50 --out model",
        "train as published": "python -m rrt_mil.train fit --config rrtmil_c16_r50",
    },
    claims=(
        Claim(
            id="content",
            statement="Where instances alone tell the label, re-embedding keeps AB-MIL's accuracy.",
            source="main results (other data)",
            paper_says="R²T improves AB-MIL on every data set",
            cost="20 s on one CPU core; full 1 min",
            measure=claims.content,
            fast=False,
        ),
        Claim(
            id="context",
            statement="Where only an instance's neighbours tell the label, re-embedding solves "
            "what AB-MIL can't.",
            source="main results (other data)",
            paper_says="CAMELYON16 AUC 97.3 against AB-MIL's 94.5",
            cost="20 s on one CPU core; full 1 min",
            measure=claims.context,
            fast=False,
        ),
        Claim(
            id="file-order",
            statement="What R²T learns of neighbours is the order of instances in the file.",
            source="a property of the design",
            paper_says="-",
            cost="20 s on one CPU core; full 1 min",
            measure=claims.file_order,
            fast=False,
        ),
        Claim(
            id="parts",
            statement="Regional attention, EPEG and cross-region attention each add something.",
            source="ablation",
            paper_says="each part raises the AUC",
            cost="3 min on one CPU core; full 9 min",
            measure=claims.parts,
            fast=False,
        ),
        Claim(
            id="aggregators",
            statement="Every aggregator gains from re-embedded features.",
            source="R²T in other MIL models",
            paper_says="AB-MIL, CLAM, DSMIL and others improve on every data set",
            cost="3 min on one CPU core; full 9 min",
            measure=claims.aggregators,
            fast=False,
        ),
        Claim(
            id="tissue",
            statement="On real stained tissue, context between patches tells what patches don't.",
            source="introduction (other data)",
            paper_says="-",
            cost="1 min on one CPU core; full 4 min",
            measure=claims.tissue,
            fast=False,
        ),
        Claim(
            id="fused",
            statement="EPEG and CR-MSA have forms whose memory is linear in the instances.",
            source="of this project",
            paper_says="about 10 GB at 9,000 instances with 8 x 8 regions (authors' README)",
            cost="20 s and 3 GiB on one CPU core",
            measure=claims.fused_epeg,
            fast=False,
        ),
        Claim(
            id="small-bags",
            statement="CR-MSA adds nothing to bags of at most 64 instances.",
            source="of this project",
            paper_says="-",
            cost="1 s on one CPU core",
            measure=claims.silent_crmsa,
        ),
        _published(
            "camelyon16", "ResNet-50 features reach AUC 97.3 on CAMELYON16.", "main results",
            "accuracy 95.49, AUC 97.3", "rrtmil_c16_r50", "CAMELYON16 features",
            "--folds 3 --seed 2021",
        ),
        _published(
            "nsclc", "Sub-types lung cancer better than AB-MIL does.", "main results",
            "accuracy 92.13", "rrtmil_nsclc_r50", "TCGA-NSCLC features",
            "--classes LUAD,LUSC --macro-f1 --patience 20 --start 70",
        ),
        _published(
            "brca", "Sub-types breast cancer better than AB-MIL does.", "main results",
            "AUC 93.95", "rrtmil_brca_r50", "TCGA-BRCA features",
            "--classes IDC,ILC --macro-f1 --patience 20 --start 70",
        ),
        _published(
            "survival", "Ranks the survival of bladder cancer patients.", "survival",
            "C-index 63.98 (61.0 ± 2.1 in the authors' own later run)", "rrtmil_survival_r50",
            "TCGA-BLCA features", "--epochs 30 --split-seed 1",
        ),
    ),
)  # fmt: skip
