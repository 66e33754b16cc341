"""From instances to a bag's label: the aggregators that R²T was plugged into."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from rrt_mil.model import R2TMILConfig


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "gelu": F.gelu,
}


class Bags(NamedTuple):
    """What an aggregator makes of a batch of bags."""

    logits: Float[Tensor, "bags classes"]
    scores: Float[Tensor, "bags maps instances"]
    """How much each instance counts, before the softmax; -inf where there is none. One map, or one
    per class."""
    evidence: Float[Tensor, "bags instances channels"]
    """What the loss on instances reads: their features in CLAM, their logits in DSMIL."""


class AttentionScores(nn.Module):
    """One score per instance and map: two layers, gated or not."""

    def __init__(self, config: "R2TMILConfig", maps: int = 1) -> None:
        super().__init__()
        dim, hidden, bias = config.dim, config.attention_dim, config.attention_bias
        self.activation = config.attention_activation
        self.hidden = nn.Linear(dim, hidden, bias=bias)
        self.gate = nn.Linear(dim, hidden, bias=bias) if config.gated else None
        self.dropout = nn.Dropout(config.attention_dropout)
        self.score = nn.Linear(hidden, maps, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None,
    ) -> Float[Tensor, "bags maps instances"]:
        hidden = self.dropout(ACTIVATIONS[self.activation](self.hidden(x)))
        if self.gate is not None:
            hidden = hidden * self.dropout(self.gate(x).sigmoid())
        return hide(self.score(hidden).mT, mask)


class AttentionMIL(nn.Module):
    """AB-MIL: the bag is the attention-weighted mean of its instances."""

    def __init__(self, config: "R2TMILConfig") -> None:
        super().__init__()
        self.scores = AttentionScores(config)
        self.classifier = nn.Linear(config.dim, config.classes)

    def forward(
        self,
        x: Float[Tensor, "bags instances dim"],
        judged: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None,
    ) -> Bags:
        """Logits and scores of bags.

        Args:
            x: the instances.
            judged: what the instance classifier of DSMIL sees; the others make no difference.
            mask: true where an instance is real.
        """
        scores = self.scores(x, mask)
        return Bags(self.classify(pool(scores, x)), scores, x)

    def classify(self, pooled: Float[Tensor, "bags maps dim"]) -> Float[Tensor, "bags classes"]:
        return self.classifier(pooled.squeeze(1))

    def instance_loss(
        self, bags: Bags, labels: Int[Tensor, "bags"], mask: Bool[Tensor, "bags instances"] | None
    ) -> Tensor | None:
        """The loss on instances, if the aggregator has one."""
        return None


class IBMIL(AttentionMIL):
    """AB-MIL beside a mixture of confounders, the prototypes of bags seen in a first training."""

    def __init__(self, config: "R2TMILConfig") -> None:
        super().__init__(config)
        self.query = nn.Linear(config.dim, config.attention_dim)
        self.key = nn.Linear(config.dim, config.attention_dim)
        self.classifier = nn.Linear(2 * config.dim, config.classes)
        self.confounders: Tensor
        self.register_buffer("confounders", torch.randn(config.confounders, config.dim))

    def classify(self, pooled: Float[Tensor, "bags 1 dim"]) -> Float[Tensor, "bags classes"]:
        query, key = self.query(pooled), self.key(self.confounders)
        weights = (query @ key.mT * key.shape[-1] ** -0.5).softmax(-1)
        confounder = weights @ self.confounders.to(weights.dtype)
        return self.classifier(torch.cat([pooled, confounder.to(pooled.dtype)], -1).squeeze(1))


class CLAM(AttentionMIL):
    """CLAM-SB: AB-MIL whose most and least attended instances teach an instance classifier."""

    def __init__(self, config: "R2TMILConfig") -> None:
        super().__init__(config)
        self.instances, self.subtyping = config.instances, config.subtyping
        self.instance_classifiers = nn.ModuleList(
            nn.Linear(config.dim, 2) for _ in range(config.classes)
        )

    def instance_loss(
        self, bags: Bags, labels: Int[Tensor, "bags"], mask: Bool[Tensor, "bags instances"] | None
    ) -> Tensor:
        """Mean over bags of the smooth SVM loss of the chosen instances.

        In the branch of the bag's class, the ``instances`` most attended ones are positive and as
        many least attended ones negative; with ``subtyping``, the most attended ones of every
        other branch are negative there. A bag with fewer instances gives all it has.
        """
        losses = []
        for bag, label in enumerate(labels.tolist()):
            real = slice(None) if mask is None else mask[bag]
            x, attention = bags.evidence[bag][real], bags.scores[bag].softmax(-1)[:, real]
            losses.append(self._loss_of_bag(x, attention, label))
        return torch.stack(losses).mean()

    def _loss_of_bag(
        self,
        x: Float[Tensor, "instances dim"],
        attention: Float[Tensor, "maps instances"],
        label: int,
    ) -> Tensor:
        count, total = min(self.instances, len(x)), x.new_zeros(())
        for name, classifier in enumerate(self.instance_classifiers):
            if name != label and not self.subtyping:
                continue
            attended = attention[name % len(attention)]
            top = attended.topk(count).indices
            if name == label:
                chosen = torch.cat([top, (-attended).topk(count).indices])
                target = chosen.new_tensor([1] * count + [0] * count)
            else:
                chosen, target = top, torch.zeros_like(top)
            total = total + smooth_svm(classifier(x[chosen]), target)
        return total / len(self.instance_classifiers) if self.subtyping else total


class MultiBranchCLAM(CLAM):
    """CLAM-MB: an attention map and a classifier of its own for each class."""

    def __init__(self, config: "R2TMILConfig") -> None:
        super().__init__(config)
        self.scores = AttentionScores(config, maps=config.classes)

    def classify(self, pooled: Float[Tensor, "bags classes dim"]) -> Float[Tensor, "bags classes"]:
        return self.classifier(pooled).diagonal(dim1=1, dim2=2)


class DSMIL(nn.Module):
    """DSMIL: instances count by their likeness to the most critical one of each class.

    Only the choice of the critical instances, and the loss on instances, sees re-embedded features.
    """

    def __init__(self, config: "R2TMILConfig") -> None:
        super().__init__()
        self.instance_classifier = nn.Linear(config.dim, config.classes)
        self.query = nn.Linear(config.dim, config.attention_dim)
        self.classifier = nn.Linear(config.classes * config.dim, config.classes)

    def forward(
        self,
        x: Float[Tensor, "bags instances dim"],
        judged: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None,
    ) -> Bags:
        judgement = self.instance_classifier(judged)
        critical = hide(judgement.mT, mask).argmax(-1)
        query = self.query(x)
        asked = query.gather(1, critical[..., None].expand(-1, -1, query.shape[-1]))
        scores = hide(asked @ query.mT * query.shape[-1] ** -0.5, mask)
        pooled = rearrange(pool(scores, x), "bags classes dim -> bags (classes dim)")
        return Bags(self.classifier(pooled), scores, judgement)

    def instance_loss(
        self, bags: Bags, labels: Int[Tensor, "bags"], mask: Bool[Tensor, "bags instances"] | None
    ) -> Tensor:
        """Cross entropy of each class's largest instance logit."""
        return F.cross_entropy(most(bags.evidence, mask), labels)


class InstanceMIL(nn.Module):
    """Mean-MIL and Max-MIL: the mean or the largest of the instances' logits."""

    def __init__(self, config: "R2TMILConfig") -> None:
        super().__init__()
        self.largest = config.aggregator == "max"
        self.classifier = nn.Linear(config.dim, config.classes)

    def forward(
        self,
        x: Float[Tensor, "bags instances dim"],
        judged: Float[Tensor, "bags instances dim"],
        mask: Bool[Tensor, "bags instances"] | None,
    ) -> Bags:
        each = self.classifier(x)
        scores = hide(each.mT, mask)
        if self.largest:
            return Bags(most(each, mask), scores, each)
        if mask is None:
            return Bags(each.mean(1), scores, each)
        real = mask[..., None].to(each.dtype)
        return Bags((each * real).sum(1) / real.sum(1), scores, each)

    def instance_loss(
        self, bags: Bags, labels: Int[Tensor, "bags"], mask: Bool[Tensor, "bags instances"] | None
    ) -> None:
        return None


AGGREGATORS: dict[str, type[nn.Module]] = {
    "abmil": AttentionMIL,
    "clam_sb": CLAM,
    "clam_mb": MultiBranchCLAM,
    "dsmil": DSMIL,
    "ibmil": IBMIL,
    "mean": InstanceMIL,
    "max": InstanceMIL,
}

LOSS_WEIGHTS = {"clam_sb": (0.7, 0.3), "clam_mb": (0.7, 0.3), "dsmil": (0.5, 0.5)}
"""Of the loss on the bag and of that on its instances."""


def hide(
    scores: Float[Tensor, "bags maps instances"], mask: Bool[Tensor, "bags instances"] | None
) -> Float[Tensor, "bags maps instances"]:
    """Scores with -inf where there is no instance."""
    return scores if mask is None else scores.masked_fill(~mask[:, None], -torch.inf)


def pool(
    scores: Float[Tensor, "bags maps instances"], x: Float[Tensor, "bags instances dim"]
) -> Float[Tensor, "bags maps dim"]:
    """The softmax-weighted mean of the instances."""
    return scores.softmax(-1).to(x.dtype) @ x


def most(
    each: Float[Tensor, "bags instances classes"], mask: Bool[Tensor, "bags instances"] | None
) -> Float[Tensor, "bags classes"]:
    """The largest of each class's instance logits."""
    return hide(each.mT, mask).amax(-1)


def smooth_svm(
    scores: Float[Tensor, "instances classes"], labels: Int[Tensor, "instances"]
) -> Float[Tensor, ""]:
    """Smooth top-1 SVM, CLAM's loss on instances: the mean of log-sum-exp(scores + margin) - right.

    The margin of wrong classes is 1, and so is the temperature (Berrada et al., 2018).
    """
    right = scores.gather(1, labels[:, None])
    margin = 1 - F.one_hot(labels, scores.shape[1]).to(scores.dtype)
    return ((scores + margin).logsumexp(1, keepdim=True) - right).mean()
