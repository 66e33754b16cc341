"""How well bags are classified or ranked: AUC, accuracy and F1 at the ROC threshold, C-index."""

from typing import Any

import numpy as np


def auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties half.

    Raises:
        ValueError: when all are positive, or none is.
    """
    positive, scores = np.asarray(positive, bool), np.asarray(scores, float)
    count = positive.sum()
    if not 0 < count < len(positive):
        raise ValueError(f"AUC needs both classes; {count} of {len(positive)} are positive")
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(sizes) - (sizes - 1) / 2)[place]
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))


def roc_threshold(positive: np.ndarray, scores: np.ndarray) -> float:
    """The score from which on bags are positive: where FPR - TPR is least, the highest such."""
    positive, scores = np.asarray(positive, bool), np.asarray(scores, float)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    true = np.cumsum(positive[order])[last] / positive.sum()
    false = np.cumsum(~positive[order])[last] / (~positive).sum()
    thresholds = np.append(np.inf, scores[order][last])
    return float(thresholds[np.argmin(np.append(0.0, false - true))])


def f1_score(true: np.ndarray, predicted: np.ndarray) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found."""
    hits = (true & predicted).sum()
    return float(2 * hits / max(1, true.sum() + predicted.sum()))


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, *, macro: bool = False
) -> dict[str, Any]:
    """AUC, accuracy and F1 as the paper reports them.

    Two classes: at the threshold of :func:`roc_threshold`. More: the likeliest class, AUC of each
    against the rest, both averages over classes.

    Args:
        labels: class of each bag.
        probabilities: [bags, classes].
        macro: F1 as the mean over both classes (the paper's TCGA figures) instead of that of
            class 1 (CAMELYON16).
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, float)
    classes = probabilities.shape[1]
    found: dict[str, Any] = {}
    if classes == 2:
        area = auc(labels == 1, probabilities[:, 1])
        found["threshold"] = roc_threshold(labels == 1, probabilities[:, 1])
        predicted = (probabilities[:, 1] >= found["threshold"]).astype(int)
    else:
        predicted, macro = probabilities.argmax(1), True
        area = float(np.mean([auc(labels == c, probabilities[:, c]) for c in range(classes)]))
    averaged = range(classes) if macro else [1]
    f1 = float(np.mean([f1_score(labels == c, predicted == c) for c in averaged]))
    return {"auc": area, "accuracy": float((predicted == labels).mean()), "f1": f1, **found}


def concordance_index(times: np.ndarray, observed: np.ndarray, risks: np.ndarray) -> float:
    """How often, of two patients, the one with the earlier event has the higher risk; ties half.

    A pair counts if the earlier time is an observed event (at equal times, if the other is
    censored).

    Raises:
        ValueError: when no pair counts.
    """
    times, risks = np.asarray(times, float), np.asarray(risks, float)
    observed = np.asarray(observed, bool)
    later = times[None] > times[:, None]
    later |= (times[None] == times[:, None]) & ~observed[None]
    counts = later & observed[:, None]
    if not counts.any():
        raise ValueError("the C-index needs an observed event before another patient's time")
    gap = risks[:, None] - risks[None]
    concordant = np.where(np.abs(gap) <= 1e-8, 0.5, gap > 0)
    return float(concordant[counts].mean())
