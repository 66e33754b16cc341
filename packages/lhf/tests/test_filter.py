"""Scores, sampling, and Algorithm 1."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhf import Histories, filter_histories, score_histories
from lhf.filtering import episode_returns, probabilities, sampling_weights, score, select


def test_scores_of_a_hand_made_history() -> None:
    found = score(np.array([[0.0, 4.0, 2.0, 8.0, 7.0], [1.0, 1.0, 1.0, 1.0, 1.0]]), 10)
    assert found.improvement == pytest.approx([(4.2 + 8) / 20, 0.05])
    assert found.stability == pytest.approx([1 - 1.5 / 10, 1])
    assert found.metric == pytest.approx(found.improvement + found.stability)
    assert score(np.array([[0.0, 4.0]]), 10, coefficient=0).metric == pytest.approx([0.3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=6))
def test_ragged_histories_score_as_each_alone(rows: list[list[int]]) -> None:
    found = score([np.array(row) for row in rows], 9)
    for i, row in enumerate(rows):
        alone = score(np.array([row], float), 9)
        assert found.metric[i] == pytest.approx(alone.metric[0])
        assert 0 <= found.improvement[i] <= 1
        assert 0 <= found.stability[i] <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=9), st.integers(0, 99))
def test_selection_keeps_the_number_the_best_and_never_the_worst(
    metric: list[float], seed: int
) -> None:
    chance = probabilities(np.array(metric))
    kept, used = select(chance, np.random.default_rng(seed).random(4000) * (1 - 1e-9) + 1e-9)
    assert len(kept) == len(metric)
    assert used >= len(kept)
    if max(metric) > min(metric):
        assert int(np.argmin(metric)) not in kept[np.array(metric)[kept] == min(metric)] or (
            chance.min() > 0
        )


def test_selection_sweeps_in_order() -> None:
    kept, used = select(np.array([1.0, 0.0, 0.5]), np.array([0.9, 0.1, 0.6, 0.2, 0.3, 0.4, 0.0]))
    assert kept.tolist() == [0, 0, 2]
    assert used == 6
    with pytest.raises(ValueError, match="2 draws keep 1 of 3"):
        select(np.array([1.0, 0.0, 0.5]), np.array([0.9, 0.1]))


def test_softmax_compares_softmaxes() -> None:
    metric = np.array([1.0, 1.2, 1.5])
    soft = np.exp(metric / 0.1) / np.exp(metric / 0.1).sum()
    expected = (soft - soft.min()) / (soft.max() - soft.min())
    assert probabilities(metric, "softmax", 0.1) == pytest.approx(expected)


def test_equal_and_single_histories_are_kept(noisy: Histories) -> None:
    first = next(iter(noisy.tasks))
    alike = noisy.only([first]).map(lambda task, history: history.select(np.array([2, 2, 2])))
    with pytest.warns(UserWarning, match=f"environment {first}: all histories score alike"):
        _, report = filter_histories(alike)
    assert report.selected[first].tolist() == [0, 1, 2]
    single = noisy.only([first]).map(lambda task, history: history.select(np.array([4])))
    assert len(filter_histories(single)[0]) == 1


def test_filter_favours_good_histories_of_each_environment(noisy: Histories) -> None:
    uneven = noisy.map(lambda task, history: history.select(np.arange(10 if task % 2 else 7)))
    filtered, report = filter_histories(uneven, seed=3)
    for task, history in filtered.tasks.items():
        assert len(history) == len(uneven.tasks[task])
        before, after = (
            episode_returns(part.rewards, 10).mean() for part in (uneven.tasks[task], history)
        )
        assert after > before
        chosen = uneven.tasks[task].optimal_actions[report.selected[task]]
        assert (history.optimal_actions == chosen).all()
    assert 0 < report.distinct < 1
    again = filter_histories(uneven, seed=3)[1]
    assert all((again.selected[t] == report.selected[t]).all() for t in report.selected)


def test_weights_have_the_filters_expectation(noisy: Histories) -> None:
    scores = score_histories(noisy)
    for task, rates in sampling_weights(scores).items():
        chance = scores[task].probability
        assert rates.sum() == pytest.approx(len(chance))
        assert rates / rates.sum() == pytest.approx(chance / chance.sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stability": -1.0}, r"stability=-1\.0: must be a finite number"),
        ({"stability": float("nan")}, "stability=nan"),
        ({"sampling": "top"}, "sampling='top': must be one of linear, softmax"),
        ({"sampling": "softmax", "temperature": 0.0}, r"temperature=0\.0: must be a positive"),
    ],
)
def test_bad_settings_are_named(noisy: Histories, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_histories(noisy, **settings)


def test_bad_returns_are_named(noisy: Histories) -> None:
    with pytest.raises(ValueError, match="hold NaN"):
        score(np.array([[np.nan, 1]]), 3)
    with pytest.raises(ValueError, match="best return 0: must be positive"):
        score(np.ones((1, 2)), 0)
    with pytest.raises(ValueError, match=r"best return 3: an episode of the histories has 4\.0"):
        score(np.array([[1.0, 4.0]]), 3)
    with pytest.raises(ValueError, match="without histories"):
        score([], 3)
    with pytest.raises(ValueError, match="15 steps is not a number of episodes of 10"):
        episode_returns(np.zeros((15, 2)), 10)
    with pytest.raises(ValueError, match="rewards hold NaN"):
        episode_returns(np.full((10, 2), np.inf), 10)
    first = next(iter(noisy.tasks))
    broken = dataclasses.replace(noisy, horizon=7)
    with pytest.raises(ValueError, match=f"environment {first}: a history of 200 steps"):
        score_histories(broken)
