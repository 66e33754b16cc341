"""The command line and the training module, on a few slides."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from rrt_mil import R2TMIL, R2TConfig, R2TMILConfig
from rrt_mil.bags import BagError
from rrt_mil.cli import _app
from rrt_mil.crossval import Settings, cross_validate, evaluate, predict, read_task
from rrt_mil.prototypes import bag_prototypes, read_prototypes
from rrt_mil.tables import read_table
from rrt_mil.train import BagData, Training
from typer.testing import CliRunner

NETWORK = R2TMILConfig(
    features=16,
    dim=16,
    attention_dim=8,
    encoder=R2TConfig(dim=16, heads=2, crmsa_heads=2, epeg_k=3, crmsa_k=1),
)
SETTINGS = Settings(folds=2, epochs=1, start=0, accelerator="cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(_app(), [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    R2TMIL(NETWORK).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_evaluate_and_predict(slides: Path, model: Path, tmp_path: Path) -> None:
    done = run("evaluate", model, slides, slides / "labels.csv", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    table = read_table(slides / "labels.csv", slides)
    assert found == pytest.approx(evaluate(R2TMIL.from_pretrained(model), table))
    out, maps = tmp_path / "out.csv", tmp_path / "maps"
    done = run("predict", model, slides / "pt_files" / "slide_0.pt", "--out", out, "--maps", maps)
    assert done.exit_code == 0, done.stderr
    header, row = out.read_text().splitlines()
    assert header == "slide,instances,label,p_0,p_1"
    assert row.startswith("slide_0,40,")
    assert sum(map(float, row.split(",")[3:])) == pytest.approx(1, abs=1e-5)
    from PIL import Image

    picture = np.array(Image.open(maps / "slide_0.png"))
    assert picture.shape[1] == 8 / 5 * picture.shape[0]
    weights = np.loadtxt(maps / "slide_0.csv", delimiter=",", skiprows=1)
    assert weights[:, 2].sum() == pytest.approx(1, abs=1e-5)
    assert weights[9, :2].tolist() == [512, 512]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "MODEL", "none.pt"], "error: no feature file at none.pt"),
        (["predict", "nowhere", "x.pt"], "error: no model at nowhere: it has no config.json"),
        (["evaluate", "MODEL", "nowhere", "LABELS"], "error: no folder of features at nowhere"),
        (["train", "SLIDES", "LABELS", "--out", "o", "--folds", "7"], "7 folds: too few patients"),
        (["train", "SLIDES", "LABELS", "--out", "o", "--variant", "x"], "error: no variant 'x'"),
        (["import", "none.pt", "--out", "o"], "error: no checkpoint file at none.pt"),
        (["import", "none.pt", "--out", "o", "--encoder", "{"], "error: '{' is not JSON"),
        (["import", "none.pt", "--out", "o", "--encoder", "3"], "'3': must be a JSON object"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, slides: Path, model: Path
) -> None:
    places = {"MODEL": model, "SLIDES": slides, "LABELS": slides / "labels.csv"}
    done = run(*(places.get(argument, argument) for argument in arguments))
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_is_installed() -> None:
    command = [sys.executable, "-c", "from rrt_mil.cli import main; main()", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("train", "evaluate", "predict", "import"))


def test_a_map_needs_coordinates(slides: Path, model: Path, tmp_path: Path) -> None:
    (slides / "h5_files" / "slide_0.h5").unlink()
    done = run("predict", model, slides / "pt_files" / "slide_0.pt", "--maps", tmp_path / "maps")
    assert done.exit_code == 2
    assert "no coordinates, neither in it nor in an h5_files beside it" in done.stderr


def test_folds_are_trained_tested_and_not_trained_again(slides: Path, tmp_path: Path) -> None:
    labels, out = slides / "labels.csv", tmp_path / "run"
    table = read_table(labels, slides)
    found = cross_validate(table, slides, labels, NETWORK, SETTINGS, out)
    assert len(found["folds"]) == 2
    assert found["mean"]["auc"] == pytest.approx(np.mean([f["auc"] for f in found["folds"]]))
    assert read_task(out / "fold_0" / "model", NETWORK)["classes"] == ["0", "1"]
    written = (out / "fold_0" / "model" / "model.safetensors").stat().st_mtime_ns
    again = cross_validate(table, slides, labels, NETWORK, SETTINGS, out)
    assert again == found
    assert (out / "fold_0" / "model" / "model.safetensors").stat().st_mtime_ns == written
    other = Settings(folds=2, epochs=9, start=0, accelerator="cpu")
    with pytest.raises(BagError, match="holds a run with other settings"):
        cross_validate(table, slides, labels, NETWORK, other, out)


def test_survival_is_trained_and_predicted(slides: Path, tmp_path: Path) -> None:
    labels, out = slides / "survival.csv", tmp_path / "run"
    table = read_table(labels, slides)
    network = R2TMILConfig(**{**vars(NETWORK), "classes": 4})
    found = cross_validate(table, slides, labels, network, SETTINGS, out)
    assert 0 <= found["mean"]["c_index"] <= 1
    folder = out / "fold_0" / "model"
    task = read_task(folder, network)
    slide = next(predict(R2TMIL.from_pretrained(folder), task, [slides / "pt_files/slide_1.pt"]))
    names = list(slide.scores)
    assert names[0] == "risk"
    assert slide.scores["risk"] == pytest.approx(-sum(slide.scores[name] for name in names[1:]))
    assert slide.label in task["classes"]


def test_ibmil_learns_beside_prototypes_of_bags(slides: Path, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prototypes.npy"
    done = run("prototypes", model, slides, "--count", 3, "--out", file)
    assert done.exit_code == 0, done.stderr
    means = torch.from_numpy(np.load(file))
    assert means.shape == (3, 16)
    network = R2TMILConfig(**{**vars(NETWORK), "aggregator": "ibmil", "confounders": 8})
    module = Training(network, confounders=str(file))
    assert module.model.config.confounders == 3
    assert module.model.aggregator.confounders.equal(means)
    done = run("prototypes", model, slides, "--count", 13, "--out", file)
    assert "13 prototypes of 12 bags" in done.stderr
    with pytest.raises(BagError, match="prototypes are 16 wide, expected 8"):
        read_prototypes(file, 8)


def test_prototypes_are_the_means_of_clusters() -> None:
    network = R2TMIL(R2TMILConfig(**{**vars(NETWORK), "encoder": None})).eval()
    near, far = torch.randn(16), torch.randn(16) + 30
    bags = [base + 0.01 * torch.randn(4, 16) for base in (near, far) for _ in range(5)]
    means = bag_prototypes(network, bags, 2)
    pooled = [network.projection(base).relu() for base in (near, far)]
    for expected in pooled:
        assert (means - expected).norm(dim=1).min() < 0.1


def test_training_module_of_survival_uses_the_censored_loss() -> None:
    from rrt_mil import survival
    from rrt_mil.data import Batch

    module = Training(R2TMILConfig(**{**vars(NETWORK), "classes": 4}), task="survival").eval()
    x, bins = torch.randn(2, 30, 16), torch.tensor([1, 3])
    batch = Batch(x, None, bins, torch.tensor([3.0, 9.0]), torch.tensor([True, False]))
    expected = survival.nll_loss(module.model(x), bins, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(module.loss(batch), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BagData(features="x"), "features and labels go together"),
        (lambda: BagData(fold=5), "fold=5: must be 0 to 4"),
        (lambda: BagData(val_share=1.0), "val_share=1.0: must be in"),
        (lambda: Training(NETWORK, confounders="x.npy"), "ibmil needs a file, the others none"),
        (lambda: Training(NETWORK, task="ranking"), "task='ranking': must be 'classification'"),
        (lambda: Training(NETWORK, survival_loss="cox"), "survival_loss='cox': must be one of nll"),
    ],
)
def test_bad_settings_of_training_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
