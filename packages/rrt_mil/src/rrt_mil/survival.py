"""Discrete-time survival: hazards, risk, and the losses of a bag's logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPSILON = 1e-7
"""Least hazard or survival whose logarithm is taken."""


def hazards(logits: Float[Tensor, "bags bins"]) -> Float[Tensor, "bags bins"]:
    """The chance of the event in each time bin, given that it did not come before."""
    return logits.sigmoid()


def survival(logits: Float[Tensor, "bags bins"]) -> Float[Tensor, "bags bins"]:
    """The chance to get past each time bin."""
    return (1 - hazards(logits)).cumprod(1)


def risk(logits: Float[Tensor, "bags bins"]) -> Float[Tensor, "bags"]:
    """Higher for those who are expected to have the event earlier: minus the sum of survival."""
    return -survival(logits).sum(1)


def nll_loss(
    logits: Float[Tensor, "bags bins"],
    bins: Int[Tensor, "bags"],
    censored: Float[Tensor, "bags"],
    alpha: float = 0.0,
) -> Float[Tensor, ""]:
    """Negative log likelihood of the bin of the event, or of surviving the bin of censoring.

    Args:
        logits: of the hazards.
        bins: time bin of the event or of the last contact, from 0.
        censored: 1 where the event was not observed.
        alpha: extra weight, in [0, 1], of the patients whose event was observed.
    """
    event, past = _log_likelihoods(logits, bins)
    observed = -(1 - censored) * event
    return ((1 - alpha) * (observed - censored * past) + alpha * observed).mean()


def ce_loss(
    logits: Float[Tensor, "bags bins"],
    bins: Int[Tensor, "bags"],
    censored: Float[Tensor, "bags"],
    alpha: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross entropy of surviving the bin, mixed with the likelihood of observed events.

    Arguments as in :func:`nll_loss`; ``alpha`` is the weight of the likelihood.
    """
    event, past = _log_likelihoods(logits, bins)
    died = (1 - _at(survival(logits), bins)).clamp(min=EPSILON).log()
    entropy = -censored * past - (1 - censored) * died
    return ((1 - alpha) * entropy - alpha * (1 - censored) * event).mean()


def _log_likelihoods(logits: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Of having the event in the bin, and of getting past it."""
    alive = torch.cat([torch.ones_like(logits[:, :1]), survival(logits)], 1)
    before, hazard = _at(alive, bins), _at(hazards(logits), bins)
    event = before.clamp(min=EPSILON).log() + hazard.clamp(min=EPSILON).log()
    return event, _at(alive, bins + 1).clamp(min=EPSILON).log()


def _at(values: Tensor, bins: Tensor) -> Tensor:
    return values.gather(1, bins[:, None]).squeeze(1)
