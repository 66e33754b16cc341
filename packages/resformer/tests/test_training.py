import csv

from attention_core import training
from resformer import Resformer
from resformer.train import ResformerData, ResformerTraining


def test_smoke_training_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training.main(
        ResformerTraining,
        ResformerData,
        package="resformer",
        monitor="val/loss",
        args=["fit", "--config", "smoke", "--trainer.max_epochs", "3"],
    )
    with (tmp_path / "runs" / "smoke" / "csv" / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert losses[-1] < losses[0]
    assert Resformer.from_pretrained(tmp_path / "runs" / "smoke" / "model").config.classes == 4
