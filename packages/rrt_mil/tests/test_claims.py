"""The claims' measurements at a small budget, and their verdicts."""

from pathlib import Path

import pytest
import torch
from attention_core import Run
from rrt_mil import claims
from rrt_mil.paper import PAPER
from rrt_mil.simulate import TASKS, digit_pools, symbol_pool, tissue_bags


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(output=tmp_path)


@pytest.mark.parametrize(
    "name", [claim.id for claim in PAPER.claims if claim.measure and claim.fast]
)
def test_fast_claims_hold(name: str, run: Run) -> None:
    found = PAPER.claim(name).measure(run)
    assert found.holds, found.measured


def test_r2t_learns_context_that_ab_mil_can_not(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short training on simulated symbols: the whole path of the digit claims."""
    pool = symbol_pool(64)
    monkeypatch.setattr(claims, "digit_pools", lambda seed: (pool, pool))
    monkeypatch.setitem(claims.BUDGETS, "context", claims.Budget(bags=80, epochs=5, batch=4))
    claims.task_bags.cache_clear()
    claims.trained.cache_clear()
    try:
        found = claims.context(run)
        order = claims.file_order(run)
    finally:
        claims.task_bags.cache_clear()
        claims.trained.cache_clear()
    assert found.numbers["auc:R²T-MIL"] > 0.85, found.measured
    assert found.numbers["auc:AB-MIL"] < 0.6, found.measured
    assert found.holds
    assert order.holds, order.measured


def test_verdicts_follow_the_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(**values: float) -> None:
        figures = {name: [value] for name, value in values.items()}
        monkeypatch.setattr(claims, "compare", lambda *_: dict(figures))

    measured(plain=0.5, ours=0.9)
    assert claims.context(run).holds
    measured(plain=0.61, ours=0.95)
    assert not claims.context(run).holds
    measured(plain=0.5, ours=0.84)
    assert not claims.context(run).holds
    measured(plain=0.96, ours=0.94)
    assert not claims.content(run).holds


def test_digit_bags_ask_for_what_they_say() -> None:
    train, test = digit_pools()
    assert len(train.symbols) == 1200
    assert len(test.symbols) == 597
    pool = symbol_pool(8, noise=0.0)
    symbol = {tuple(v.tolist()): int(s) for v, s in zip(pool.features, pool.symbols, strict=True)}

    def bags(task: str) -> list[tuple[list[int], int]]:
        x, labels = TASKS[task](pool, 20, 100, 3)
        rows = [[symbol[tuple(v.tolist())] for v in bag] for bag in x]
        return list(zip(rows, labels.tolist(), strict=True))

    for row, label in bags("content"):
        assert row.count(9) == 5 * label
    for row, label in bags("context"):
        assert row.count(3) == row.count(5) == 5
        beside = sum(row[i] == 3 and row[i + 1] == 5 for i in range(0, 100, 2))
        assert beside == 5 * label
    for row, label in bags("order"):
        first = sum(row[i] == 3 and row[i + 1] == 5 for i in range(0, 100, 2))
        assert row.count(3) == row.count(5) == 5
        assert first == 5 * label
    for row, label in bags("company"):
        assert {row.count(3), row.count(5)} == ({5} if label else {0, 10})


def test_tissue_windows_are_intact_or_shuffled() -> None:
    x, labels = tissue_bags("intact", "train", 8)
    assert x.shape == (8, 144, 64)
    grid = x.reshape(8, 12, 12, 64)
    step = (grid[:, :, 1:] - grid[:, :, :-1]).norm(dim=-1).mean((1, 2))
    assert step[labels == 1].max() < step[labels == 0].min()
    _, dense = tissue_bags("density", "test", 9)
    assert dense.sum() == 4


def test_what_a_step_keeps_is_counted() -> None:
    layer = torch.nn.Linear(512, 3)
    assert claims.kept_bytes(layer, 10) >= 10 * 512 * 4
