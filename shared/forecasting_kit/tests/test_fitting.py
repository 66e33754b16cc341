import copy
import math

import pytest
import torch
from forecasting_kit import Batch, evaluate, fit, from_frame, learning_rate, prepare, training_loss
from torch import nn


@pytest.fixture
def splits(frame):
    return prepare(from_frame(frame), 24, 8)


@pytest.fixture
def network(small):
    torch.manual_seed(0)
    return small.model_class(small(24, 8).configure(variates=3, marks=4))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("type1", [8, 8, 4, 2, 1, 0.5]),
        ("type3", [8, 8, 8, 8, 8 * 0.9, 8 * 0.81]),
        ("cosine", [8 / 2 * (1 + math.cos(math.pi * e / 6)) for e in range(6)]),
        ("constant", [8] * 6),
        ("type2", [8, 8, 5e-5, 5e-5, 1e-5, 1e-5]),
    ],
)
def test_learning_rates_by_epoch(schedule, rates):
    assert [learning_rate(schedule, e, 8, 6) for e in range(6)] == pytest.approx(rates)


def test_type2_ends_where_it_is_published_to():
    assert [learning_rate("type2", e, 1, 30) for e in (14, 15, 19, 25)] == [5e-7, 1e-7, 1e-7, 5e-8]


def test_training_lowers_the_error_and_keeps_the_best_epoch(splits, network):
    before = evaluate(network, splits.val).mse
    history = fit(network, splits.train, splits.val, epochs=6, lr=1e-2)
    assert min(e.val_mse for e in history) < 0.2 * before
    assert evaluate(network, splits.val).mse == min(e.val_mse for e in history)
    assert [e.learning_rate for e in history[:4]] == [1e-2, 1e-2, 5e-3, 2.5e-3]
    assert not network.training


def test_training_stops_when_nothing_gets_better(splits, network):
    history = fit(
        network, splits.train, splits.val, epochs=50, lr=1, schedule="constant", patience=2
    )
    best = min(range(len(history)), key=lambda e: history[e].val_mse)
    assert len(history) == best + 1 + 2 < 50
    assert evaluate(network, splits.val).mse == history[best].val_mse


def test_the_seed_decides_everything_and_the_global_generator_is_left_alone(splits, small):
    def train(seed):
        torch.manual_seed(5)
        model = small.model_class(small(24, 8).configure(variates=3, marks=4))
        state = torch.get_rng_state()
        fit(model, splits.train, epochs=2, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return model.outer.weight

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_every_window_is_seen_once_an_epoch(splits, network):
    seen = []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    fit(network, splits.train, epochs=1, batch_size=32)
    count = len(splits.train)
    assert [len(x) for x in seen] == [32] * (count // 32) + [count % 32]
    order = torch.cat(seen)[:, 0, 0]
    assert not torch.equal(order, splits.train.values[:count, 0])
    assert torch.equal(order.sort().values, splits.train.values[:count, 0].sort().values)
    seen.clear()
    fit(network, splits.train, epochs=1, batch_size=32, drop_last=True)
    assert [len(x) for x in seen] == [32] * (count // 32)


def test_an_epoch_is_adam_on_the_mean_squared_error(splits, network):
    network.drop.p = 0.0
    twin, seen = copy.deepcopy(network), []
    hook = network.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, :, 0]))
    fit(network, splits.train, epochs=1, lr=1e-2, batch_size=64)
    hook.remove()
    # Which windows a batch held is read off its first rows, which are all different.
    first = {row.item(): i for i, row in enumerate(splits.train.values[: len(splits.train), 0])}
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-2, fused=False)
    for x in seen:
        batch = splits.train[[first[value] for value in x[:, 0].tolist()]]
        loss = (twin(batch.x) - batch.y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for trained, replayed in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(trained, replayed, atol=1e-5)


class Level(nn.Module):
    """Forecasts the first value; keeps the windows it saw."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x, marks=None):
        self.seen.append(x)
        return x[:, :1].expand(-1, 4, -1) + self.level


def test_efficient_training_draws_a_fresh_subset_of_all_variates():
    x = torch.arange(10.0).expand(6, 5, 10)
    batch, model = Batch(x, x[:, :4] + 1), Level()
    for _ in range(60):
        assert training_loss(model, batch, 3).item() == pytest.approx(1)  # y goes with its x
    drawn = [tuple(seen[0, 0].int().tolist()) for seen in model.seen]
    assert all(len(set(columns)) == 3 for columns in drawn)
    assert len(set(drawn)) > 30
    assert set().union(*drawn) == set(range(10))
    for number in (0, 11):
        with pytest.raises(ValueError, match=f"per batch {number}: must be from 1 to the 10"):
            training_loss(model, batch, number)


def test_efficient_training_keeps_the_only_target():
    x = torch.arange(10.0).expand(6, 5, 10)
    model = Level()
    training_loss(model, Batch(x, x[:, :4, -1:]), 3)
    assert model.seen[0].shape == (6, 5, 3)
    assert (model.seen[0][..., -1] == 9).all()
    assert (model.seen[0][..., :2] < 9).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"patience": 0}, "patience=0: must be at least 1"),
        ({"lr": 0.0}, "lr=0.0: must be above 0"),
        ({"schedule": "type4"}, "schedule='type4': must be one of type1, type2"),
        ({"drop_last": True, "batch_size": 999}, "batch_size=999 with drop_last: only 249"),
        ({"lr": 1e18, "schedule": "constant"}, "training diverged in epoch"),
    ],
)
def test_bad_settings_are_refused(splits, network, settings, message):
    with pytest.raises(ValueError, match=message):
        fit(network, splits.train, **settings)


def test_a_progress_bar_is_drawn_on_request(splits, network, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    fit(network, splits.train, epochs=1, progress=True)
    assert "epoch 1/1" in capsys.readouterr().err
    fit(network, splits.train, epochs=1)
    assert not any(capsys.readouterr())


def test_a_progress_bar_of_the_callers(splits, network):
    drawn = []

    def bar(steps, total, what):
        drawn.append((total, what))
        return steps

    fit(network, splits.train, epochs=2, batch_size=50, progress=bar)
    assert drawn == [(5, "epoch 1/2"), (5, "epoch 2/2")]
