"""The claims that take seconds, the command, the training module."""

import json
from dataclasses import replace

import pytest
import torch
from attention_core import Run
from image_classification_kit.commands import classification_app
from image_classification_kit.figures import attention_figure
from PIL import Image
from tnt import TNT
from tnt.cli import preprocessing
from tnt.paper import PAPER
from tnt.train import Training
from typer.testing import CliRunner


@pytest.mark.parametrize("name", ["sizes", "inner-is-cheap", "timm-agreement"])
def test_fast_claims_hold(name: str, tmp_path) -> None:
    claim = PAPER.claim(name)
    assert claim.measure is not None
    assert claim.measure(Run(output=tmp_path)).holds


def test_learns_real_digits(tmp_path) -> None:
    """scikit-learn's 8 x 8 digits: 80 steps of a small network."""
    from image_classification_kit import accuracy, as_tensors, digits, fit
    from tnt.claims import TOY

    arrays = digits()
    train, test = (
        as_tensors(*part, size=8, mean=0.3, std=0.35) for part in (arrays.train, arrays.test)
    )
    small = {"image_size": (8, 8), "patch_size": 4, "inner_stride": 2, "depth": 2}
    model = TNT(replace(TOY, **small))
    losses = fit(model, *train, steps=80, batch_size=64, lr=6e-3, shift=0)
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert accuracy(model, *test) > 0.7


def test_classify_draws_what_the_class_token_attends_to(tiny, tmp_path) -> None:
    TNT(replace(tiny, image_size=(24, 24))).save_pretrained(tmp_path / "model")
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "a.png")
    app = classification_app("tnt", TNT.load, preprocessing=preprocessing(), draw=attention_figure)
    arguments = ["classify", str(tmp_path / "a.png"), "-m", str(tmp_path / "model"), "--json"]
    arguments += ["--map", str(tmp_path / "map.png"), "--size", "24", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout.splitlines()[0])["top"]) == 5
    assert Image.open(tmp_path / "map.png").width > 600
    wrong = CliRunner().invoke(app, [*arguments[:-4], "--size", "32"])
    assert wrong.exit_code == 2
    assert "the model takes 24 x 24" in wrong.output


def test_training_starts_from_weights_of_another_size(tiny, tmp_path) -> None:
    source = TNT(tiny)
    source.save_pretrained(tmp_path / "model")
    network = replace(tiny, classes=3, image_size=(32, 24), drop_path=0.1)
    model = Training(network, weights=str(tmp_path / "model"), ema=None).model
    assert model.config == network
    assert model.outer_positions.equal(source.resized((32, 24)).outer_positions)
    assert model.classifier.out_features == 3
    assert torch.equal(model.blocks[1].inner.fc1.weight, source.blocks[1].inner.fc1.weight)
