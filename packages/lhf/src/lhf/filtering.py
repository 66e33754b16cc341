"""Learning History Filtering: scores of histories, and the data set resampled by them (Sec. 3)."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lhf.histories import Histories

SAMPLINGS = ("linear", "softmax")
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Scores:
    """What the histories of one environment are worth; one entry per history."""

    improvement: Array
    """(mean return + its range) / (2 R_max), in [0, 1]."""
    stability: Array
    """1 + mean of the falls of the return / R_max, in [0, 1]; 1 without any fall."""
    metric: Array
    """U: improvement + coefficient * stability."""
    probability: Array
    """Of being kept when the filter comes by; 0 for the worst and 1 for the best."""


@dataclass(frozen=True, eq=False)
class FilterReport:
    """What the filter did."""

    scores: Mapping[int, Scores]
    """By task number."""
    selected: Mapping[int, Array]
    """Which histories of the task the filtered set holds, in the order they were kept."""
    settings: Mapping[str, Any]

    @property
    def distinct(self) -> float:
        """Share of all histories that are still there."""
        kept = sum(len(np.unique(indices)) for indices in self.selected.values())
        return kept / sum(len(indices) for indices in self.selected.values())

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        tasks = scores_to_json(self.scores)
        for task, indices in self.selected.items():
            tasks[str(task)]["selected"] = indices.tolist()
        return {"settings": dict(self.settings), "distinct": self.distinct, "tasks": tasks}


def scores_to_json(scores: Mapping[int, Scores]) -> dict[str, dict[str, list[float]]]:
    """Scores by task, as JSON takes them."""
    return {
        str(task): {name: value.tolist() for name, value in asdict(found).items()}
        for task, found in scores.items()
    }


def episode_returns(rewards: Array, horizon: int) -> Array:
    """Returns of the episodes of histories, [histories, episodes].

    Args:
        rewards: [steps, histories].
        horizon: steps of every episode.

    Raises:
        ValueError: for a broken last episode, or rewards that are not finite.
    """
    if horizon < 1 or not len(rewards) or len(rewards) % horizon:
        raise ValueError(
            f"a history of {len(rewards)} steps is not a number of episodes of {horizon} steps"
        )
    if not np.isfinite(rewards).all():
        raise ValueError("the rewards hold NaN or infinity")
    return rewards.reshape(-1, horizon, rewards.shape[1]).sum(1, dtype=np.float64).T


def improvement(returns: Array, best: float) -> Array:
    """How much a history earns and how far it comes, over episodes (the last axis)."""
    reach = returns.max(-1) - returns.min(-1)
    return (returns.mean(-1) + reach) / (2 * best)


def stability(returns: Array, best: float) -> Array:
    """1 less the mean fall from one episode to the next; episodes that gain don't count."""
    falls = np.minimum(np.diff(returns, axis=-1), 0)
    count = np.count_nonzero(falls, axis=-1)
    return 1 + falls.sum(-1) / np.maximum(count, 1) / best


def probabilities(metric: Array, sampling: str = "linear", temperature: float = 1.0) -> Array:
    """The chance of each history of one environment, by its place between worst and best.

    ``softmax`` compares softmax(metric / temperature) instead of the metric. Where all are equal,
    which the paper leaves open, every history is kept.

    Raises:
        ValueError: for another sampling, or a temperature that is not positive.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling={sampling!r}: must be one of {', '.join(SAMPLINGS)}")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature={temperature}: must be a positive number")
    if sampling == "softmax":
        weight = np.exp((metric - metric.max()) / temperature)
        metric = weight / weight.sum()
    low, high = metric.min(), metric.max()
    if high == low:
        return np.ones_like(metric)
    return (metric - low) / (high - low)


def score(
    returns: Array | Sequence[Array],
    best: float,
    *,
    coefficient: float = 1.0,
    sampling: str = "linear",
    temperature: float = 1.0,
) -> Scores:
    """Scores of the histories of one environment.

    Args:
        returns: of their episodes, [histories, episodes], or one array per history where their
            lengths differ.
        best: the largest return that an episode can have there (R_max).
        coefficient: weight of stability in the metric (λ).
        sampling: see :func:`probabilities`.
        temperature: of ``softmax`` (α).

    Raises:
        ValueError: for returns that are missing, not finite, or beyond ``best``; and bad settings.
    """
    if not (np.isfinite(coefficient) and coefficient >= 0):
        raise ValueError(f"stability={coefficient}: must be a finite number of at least 0")
    rows = [np.asarray(row, np.float64)[None] for row in returns]
    if isinstance(returns, np.ndarray) and returns.ndim == 2 and len(returns):
        rows = [returns.astype(np.float64)]
    if not rows or any(row.size == 0 for row in rows):
        raise ValueError("an environment without histories, or a history without episodes")
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("the returns hold NaN or infinity")
    if not best > 0:
        raise ValueError(f"best return {best}: must be positive")
    if (top := max(row.max() for row in rows)) > best:
        raise ValueError(f"best return {best}: an episode of the histories has {top}")
    gain = np.concatenate([improvement(row, best) for row in rows])
    calm = np.concatenate([stability(row, best) for row in rows])
    metric = gain + coefficient * calm
    return Scores(gain, calm, metric, probabilities(metric, sampling, temperature))


def select(probability: Array, draws: Array | Iterator[Array]) -> tuple[Array, int]:
    """Algorithm 1: sweep over the histories, keep each with its chance, until as many are kept.

    Args:
        probability: of every history.
        draws: uniform numbers, read from left to right, one per candidate; or arrays of them.

    Returns:
        The indices kept, in order and with repetitions, and how many draws it took.

    Raises:
        ValueError: when the draws are used up before.
    """
    count = len(probability)
    kept: list[int] = []
    used = 0
    for chunk in [draws] if isinstance(draws, np.ndarray) else draws:
        position = np.arange(used, used + len(chunk)) % count
        hits = np.flatnonzero(chunk <= probability[position])[: count - len(kept)]
        kept.extend(position[hits].tolist())
        if len(kept) == count:
            return np.array(kept), used + int(hits[-1]) + 1
        used += len(chunk)
    raise ValueError(f"{used} draws keep {len(kept)} of {count} histories: more are needed")


def score_histories(
    histories: Histories,
    *,
    stability: float = 1.0,
    sampling: str = "linear",
    temperature: float = 1.0,
) -> dict[int, Scores]:
    """Scores of every history, by task; arguments as in :func:`filter_histories`.

    Raises:
        ValueError: naming the task whose histories can't be scored, and why.
    """
    settings: dict[str, Any] = {
        "coefficient": stability,
        "sampling": sampling,
        "temperature": temperature,
    }
    best = histories.best_returns()
    found = {}
    for task, history in histories.tasks.items():
        try:
            returns = episode_returns(history.rewards, histories.horizon)
            found[task] = score(returns, best[task], **settings)
        except ValueError as error:
            raise ValueError(f"environment {task}: {error}") from error
        metric = found[task].metric
        if len(metric) > 1 and np.ptp(metric) == 0:
            warnings.warn(
                f"environment {task}: all histories score alike; all are kept", stacklevel=2
            )
    return found


def filter_histories(
    histories: Histories,
    *,
    stability: float = 1.0,
    sampling: str = "linear",
    temperature: float = 1.0,
    seed: int = 0,
) -> tuple[Histories, FilterReport]:
    """The same number of histories per environment, good ones several times, the worst one gone.

    Args:
        histories: of any number of environments.
        stability: its weight against improvement (λ; 1 in the paper).
        sampling: ``linear`` or ``softmax``.
        temperature: of ``softmax`` (α).
        seed: of the draws.

    Raises:
        ValueError: for histories or settings that can't be scored.
    """
    scores = score_histories(
        histories, stability=stability, sampling=sampling, temperature=temperature
    )
    selected = {}
    for task, found in scores.items():
        draw = np.random.default_rng([seed, task])
        selected[task], _ = select(found.probability, _endless(draw, len(found.probability)))
    settings = {
        "stability": stability, "sampling": sampling, "temperature": temperature, "seed": seed,
    }  # fmt: skip
    return histories.select(selected), FilterReport(scores, selected, settings)


def sampling_weights(scores: Mapping[int, Scores]) -> dict[int, Array]:
    """Sampling rates of the histories that have the filter's expectation without its copies.

    A task's rates sum to its number of histories: every environment keeps its share.
    """
    rates = {}
    for task, found in scores.items():
        rates[task] = found.probability * len(found.probability) / found.probability.sum()
    return rates


def _endless(draw: np.random.Generator, count: int) -> Iterator[Array]:
    while True:
        yield draw.random(8 * count)
