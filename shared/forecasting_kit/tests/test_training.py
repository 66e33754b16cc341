import pytest
import torch
from attention_core.training import SeedEachEpoch
from forecasting_kit import evaluate
from forecasting_kit.training import ForecastDataModule, ForecastModule
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint


@pytest.fixture
def loads(frame, tmp_path):
    path = tmp_path / "loads.csv"
    frame.to_csv(path, index_label="date")
    return str(path)


@pytest.fixture
def make(small, tmp_path):
    def make(data, epochs=2, trainer=None, **settings):
        seed_everything(3)
        network = small.model_class(small(24, 8).configure(variates=3, marks=4))
        module = ForecastModule(network, **{"lr": 1e-2, **settings})
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[SeedEachEpoch(), ModelCheckpoint(tmp_path / "runs", save_last=True)],
            **(trainer or {}),
        )
        return module, data, trainer

    return make


def windows(loads, **settings):
    return ForecastDataModule(loads, lookback=24, horizon=8, **settings)


def test_validation_and_test_are_exact_for_every_batch_size(make, loads):
    network, exact = None, {}
    for batch_size in (1, 7, 64):
        module, data, trainer = make(windows(loads, batch_size=batch_size))
        network = network or module.model
        module.model = network
        trainer.validate(module, data, verbose=False)
        found = {**trainer.callback_metrics}
        trainer.test(module, data, verbose=False)
        found |= trainer.callback_metrics
        exact.setdefault("val", set()).add(found["val_mse"].item())
        exact.setdefault("test", set()).add(found["test_mae"].item())
        val, test = (evaluate(network, data.splits[name]) for name in ("val", "test"))
        assert found["val_mse"] == torch.tensor(val.mse)
        assert found["test_rse"] == torch.tensor(test.rse)
        assert found["test_median_mse"] == torch.tensor(test.median_mse)
    assert {name: len(values) for name, values in exact.items()} == {"val": 1, "test": 1}


def test_fit_learns_by_the_schedule_and_logs(make, loads):
    module, data, trainer = make(windows(loads, batch_size=16), epochs=4)
    trainer.fit(module, data)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    assert trainer.callback_metrics["val_mse"] < 0.3
    assert "train_mse" in trainer.callback_metrics
    assert rate == pytest.approx(1e-2 / 8)


def test_early_stopping_watches_the_validation_error(make, loads):
    module, data, trainer = make(windows(loads), epochs=40, lr=1e-30, patience=2)
    trainer.fit(module, data)
    assert trainer.current_epoch == 3  # the first epoch was the best
    assert make(windows(loads), patience=None)[0].configure_callbacks() == []


def test_resuming_gives_the_weights_of_an_unbroken_run(make, loads, tmp_path):
    settings = {"variates_per_batch": 2}
    module, data, trainer = make(windows(loads), epochs=4, **settings)
    trainer.fit(module, data)
    whole = module.model.outer.weight.clone()
    module, data, trainer = make(windows(loads), epochs=2, **settings)
    trainer.fit(module, data)
    assert not torch.equal(module.model.outer.weight, whole)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    module, data, trainer = make(windows(loads), epochs=4, **settings)
    torch.rand(17)
    trainer.fit(module, data, ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert torch.equal(module.model.outer.weight, whole)


def test_two_processes_score_every_window_once(make, loads):
    alone, data, trainer = make(windows(loads))
    trainer.validate(alone, data, verbose=False)
    single = trainer.callback_metrics["val_mse"].item()
    module, data, trainer = make(windows(loads), trainer={"devices": 2, "strategy": "ddp_fork"})
    trainer.validate(module, data, verbose=False)
    assert trainer.callback_metrics["val_mse"].item() == pytest.approx(single, rel=1e-6)


def test_partial_training_tests_on_all_variates(make, loads):
    module, data, trainer = make(windows(loads, variates=1, first_variate=1), epochs=1)
    seen = []
    module.model.register_forward_pre_hook(lambda net, args: seen.append(args[0].shape[-1]))
    trainer.fit(module, data)
    assert set(seen) == {1}
    assert torch.equal(data.windows("val").values, data.splits.val.values[:, 1:2])
    seen.clear()
    trainer.test(module, data, verbose=False)
    assert set(seen) == {3}
    for variates, first in ((3, 1), (0, 0), (1, -1)):
        with pytest.raises(ValueError, match=f"variates={variates} from {first}: the data has 3"):
            windows(loads, variates=variates, first_variate=first).setup()
    with pytest.raises(ValueError, match="the MS setting needs its target"):
        windows(loads, variates=2, features="MS")


def test_efficient_training_uses_a_subset_in_training_only(make, loads):
    module, data, trainer = make(windows(loads), epochs=1, variates_per_batch=2)
    seen = set()
    module.model.register_forward_pre_hook(
        lambda net, args: seen.add((net.training, args[0].shape[-1]))
    )
    trainer.fit(module, data)
    assert seen == {(True, 2), (False, 3)}


def test_the_last_variate_alone_is_scored_under_ms(make, loads):
    module, data, trainer = make(windows(loads, features="MS", target="load0"), epochs=1)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    expected = evaluate(module.model, data.splits.test)
    assert len(expected.mse_per_variate) == 1
    assert trainer.callback_metrics["test_mse"] == torch.tensor(expected.mse)


def test_named_data_sets_bring_their_kind(tmp_path, waves):
    (tmp_path / "ETT-small").mkdir()
    waves(rows=14500).to_csv(tmp_path / "ETT-small/ETTh2.csv", index_label="date")
    data = ForecastDataModule("ETTh2", root=str(tmp_path), lookback=96, horizon=96)
    data.setup()
    assert len(data.splits.train) == 8640 - 96 - 96 + 1
    data = ForecastDataModule(
        "ETTh2", root=str(tmp_path), lookback=96, horizon=96, split=(0.5, 0.25, 0.25)
    )
    data.setup()
    assert len(data.splits.train) == 7250 - 96 - 96 + 1


def test_a_split_without_validation_trains_to_the_end(make, loads):
    data = windows(loads, split=(1.0, 0.0, 0.0))
    module, data, trainer = make(data, epochs=1, patience=None)
    trainer.fit(module, data)
    assert "val_mse" not in trainer.callback_metrics
    with pytest.raises(RuntimeError, match="ForecastDataModule needs a trainer"):
        windows(loads, split=(1.0, 0.0, 0.0)).train_dataloader()


def test_an_unknown_schedule_is_refused(make, loads):
    with pytest.raises(ValueError, match="schedule='type9'"):
        make(windows(loads), schedule="type9")
