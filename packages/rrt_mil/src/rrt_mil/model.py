"""R²T-MIL: projection, R²T, aggregator and every other aggregator with R²T plugged in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    PaperModel,
    read_checkpoint,
    require,
    require_choice,
    require_fraction,
    require_positive,
)
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from rrt_mil.aggregators import ACTIVATIONS, AGGREGATORS, LOSS_WEIGHTS, Bags
from rrt_mil.encoder import R2T, R2TConfig, check_bags, initialise
from rrt_mil.encoder import VARIANTS as ENCODERS


@dataclass(frozen=True, kw_only=True)
class R2TMILConfig:
    """Sizes of a classifier of bags."""

    features: int = 1024
    """Width of the frozen extractor's features: 1024 for ResNet-50, 512 for PLIP."""
    classes: int = 2
    """Of bags; in survival, time bins."""
    dim: int = 512
    """Width after the projection."""
    activation: str = "relu"
    """Of the projection: ``relu`` or ``gelu``."""
    dropout: float = 0.25
    """After the projection."""
    encoder: R2TConfig | None = field(default_factory=R2TConfig)
    """R²T; none is the plain aggregator."""
    aggregator: str = "abmil"
    """``abmil`` (R²T-MIL), ``clam_sb``, ``clam_mb``, ``dsmil``, ``ibmil``, ``mean`` or ``max``."""
    attention_dim: int = 128
    """Hidden width of the aggregator's attention; 256 in CLAM."""
    attention_activation: str = "tanh"
    """``tanh``, ``relu`` or ``gelu``."""
    attention_bias: bool = False
    attention_dropout: float = 0.0
    gated: bool = False
    """Whether the aggregator's attention is gated."""
    instances: int = 8
    """CLAM: instances of either sign that each bag gives to the instance classifier."""
    subtyping: bool = False
    """CLAM: whether the other classes' branches learn from a bag as well."""
    confounders: int = 0
    """IBMIL: number of prototypes."""

    def __post_init__(self) -> None:
        require_positive(self, "features", "classes", "dim", "attention_dim", "instances")
        require_choice(self, "activation", ("relu", "gelu"))
        require_choice(self, "attention_activation", tuple(ACTIVATIONS))
        require_choice(self, "aggregator", tuple(AGGREGATORS))
        require_fraction(self, "dropout", "attention_dropout")
        if self.encoder is not None:
            same = self.encoder.dim == self.dim
            require(self, "dim", same, f"must be the encoder's dim={self.encoder.dim}")
        wants = self.aggregator == "ibmil"
        require(
            self,
            "confounders",
            self.confounders >= 1 if wants else self.confounders == 0,
            "must be at least 1 for ibmil" if wants else "must be 0 for all but ibmil",
        )


def _r2t(encoder: str, **changes: Any) -> R2TMILConfig:
    return R2TMILConfig(encoder=ENCODERS[encoder], **changes)


_CLAM: dict[str, Any] = {
    "attention_dim": 256, "attention_bias": True, "attention_dropout": 0.25, "gated": True,
}  # fmt: skip
VARIANTS = {
    "rrtmil": _r2t("r2t", attention_activation="relu"),
    "rrtmil_c16_r50": _r2t("r2t_c16_r50"),
    "rrtmil_c16_plip": _r2t("r2t_c16_plip", features=512),
    "rrtmil_nsclc_r50": _r2t("r2t_nsclc_r50"),
    "rrtmil_nsclc_plip": _r2t("r2t_nsclc_plip", features=512),
    "rrtmil_brca_r50": _r2t("r2t_brca_r50"),
    "rrtmil_brca_plip": _r2t("r2t_brca_plip", features=512),
    "rrtmil_survival_r50": _r2t("r2t_survival", classes=4, attention_activation="relu"),
    "rrtmil_survival_plip": _r2t(
        "r2t_survival", classes=4, attention_activation="relu", features=512
    ),
    "r2t_abmil": _r2t("r2t", attention_bias=True),
    "r2t_gated_abmil": _r2t("r2t", attention_activation="relu", attention_dropout=0.25, gated=True),
    "r2t_clam_sb": _r2t("r2t", aggregator="clam_sb", **_CLAM),
    "r2t_clam_mb": _r2t("r2t", aggregator="clam_mb", **_CLAM),
    "r2t_dsmil": _r2t("r2t", aggregator="dsmil"),
    "r2t_ibmil": _r2t("r2t", aggregator="ibmil", attention_bias=True, confounders=8),
    "r2t_mean": _r2t("r2t", aggregator="mean"),
    "r2t_max": _r2t("r2t", aggregator="max"),
}
"""``rrtmil_<data set>_<features>`` are the published runs (``rrtmil`` the authors' defaults),
``r2t_<aggregator>`` the other aggregators with R²T."""


class R2TMIL(PaperModel):
    """Classifies a bag of instance features; R²T re-embeds them between projection and aggregator.

    With ``encoder=None`` it is the plain aggregator, the baseline of every comparison.
    """

    variants = VARIANTS

    def __init__(self, config: R2TMILConfig) -> None:
        super().__init__(config)
        self.projection = nn.Linear(config.features, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        encoder = None if config.encoder is None else R2T(config.encoder)
        # DSMIL: only the branch that judges instances sees re-embedded features.
        judges = config.aggregator == "dsmil"
        self.encoder = None if judges else encoder
        self.instance_encoder = encoder if judges else None
        self.aggregator: Any = AGGREGATORS[config.aggregator](config)
        initialise(self)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        variant: str | None = None,
        encoder: Mapping[str, Any] | None = None,
        confounders: Float[Tensor, "prototypes dim"] | None = None,
        **settings: Any,
    ) -> Self:
        """The model of a checkpoint that the authors' code wrote, of any of its aggregators.

        The aggregator, all widths, depth, taps and representatives are read off the tensors. The
        file can't tell the rest, which comes from ``variant``, or the fields given here:

        Args:
            checkpoint: ``fold_k_model_best_auc.pt``, a survival ``model_best_*.pth.tar``, or a
                state dict.
            variant: the published run that trained it, such as ``rrtmil_c16_r50``.
            encoder: fields of `R2TConfig` that tensors don't show: ``shortcut``, ``crmsa_heads``,
                ``regions``, ``heads`` (without EPEG), ``dropout`` and the ablations.
            confounders: of IBMIL, where the file has none.
            settings: fields of `R2TMILConfig` that tensors don't show: ``activation``,
                ``attention_activation``, ``dropout``, ``instances``, ``subtyping``; and
                ``aggregator="max"``, for Mean-MIL and Max-MIL look the same.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped entry.
            ValueError: for an unknown variant or field.
        """
        from rrt_mil.official import convert

        state = read_checkpoint(checkpoint)
        return cls.from_state(
            *convert(
                state, variant=variant, encoder=encoder, confounders=confounders, settings=settings
            )
        )

    def forward(
        self,
        x: Float[Tensor, "..."] | list[Tensor],
        mask: Shaped[Tensor, "*bags instances"] | None = None,
    ) -> Float[Tensor, "bags classes"]:
        """Logits of bags; each is computed on its own.

        Args:
            x: [bags, instances, features], one bag [instances, features], or a list of bags of any
                lengths. Half-precision features are read in the model's precision.
            mask: true (or 1) where an instance of a padded batch is real.

        Raises:
            ValueError: for an empty bag, another width, or a mask of another shape.
        """
        if isinstance(x, list | tuple):
            if mask is not None:
                raise ValueError("a mask goes with a padded batch [bags, instances, features] only")
            return torch.cat([self(bag) for bag in x])
        return self.bags(x, mask).logits

    def bags(
        self,
        x: Float[Tensor, "*bags instances features"],
        mask: Shaped[Tensor, "*bags instances"] | None = None,
    ) -> Bags:
        """Logits with the scores of the instances and what the loss on instances reads."""
        if x.ndim == 2:
            x, mask = x[None], None if mask is None else mask[None]
        mask = check_bags(x, self.config.features, mask)
        activate = ACTIVATIONS[self.config.activation]
        projected = self.dropout(activate(self.projection(x.to(self.projection.weight.dtype))))
        h = projected if self.encoder is None else self.encoder(projected, mask)
        judged = h if self.instance_encoder is None else self.instance_encoder(h, mask)
        return self.aggregator(h, judged, mask)

    def loss(
        self,
        x: Float[Tensor, "bags instances features"],
        labels: Int[Tensor, "bags"],
        mask: Shaped[Tensor, "bags instances"] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ) -> Float[Tensor, ""]:
        """What the aggregator is trained with: the loss on bags, in CLAM and DSMIL with instances.

        Args:
            x: bags.
            labels: class (or time bin) of each bag.
            mask: true where an instance is real.
            criterion: (logits, labels) -> the loss on bags.

        Raises:
            ValueError: for a label that is not a class of the model.
        """
        classes = self.config.classes
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels {labels.tolist()}: must be in 0 to {classes - 1}")
        mask = None if mask is None else mask.bool()
        bags = self.bags(x, mask)
        loss = criterion(bags.logits, labels)
        if self.config.aggregator not in LOSS_WEIGHTS:
            return loss
        on_bags, on_instances = LOSS_WEIGHTS[self.config.aggregator]
        instance_loss = self.aggregator.instance_loss(bags, labels, mask)
        return on_bags * loss + on_instances * instance_loss

    @torch.no_grad()
    def attention(
        self,
        x: Float[Tensor, "*bags instances features"],
        mask: Shaped[Tensor, "*bags instances"] | None = None,
    ) -> Float[Tensor, "bags maps instances"]:
        """The weight of each instance in its bag, summing to 1: one map, or one per class."""
        return self.bags(x, mask).scores.softmax(-1)
