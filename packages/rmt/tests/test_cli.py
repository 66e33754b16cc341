"""``rmt classify`` and its figure, the training module, the fast claims."""

import json

import pytest
import torch
from attention_core import Run
from image_classification_kit.commands import classification_app
from PIL import Image
from rmt import RMT
from rmt.cli import draw_decay
from rmt.official import to_official_names
from rmt.paper import PAPER
from rmt.train import Training
from typer.testing import CliRunner


def test_classify_writes_the_decay_that_the_middle_sees(tiny, tmp_path) -> None:
    RMT(tiny).save_pretrained(tmp_path / "model")
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "a.png")
    app = classification_app("rmt", RMT.load, draw=draw_decay)
    arguments = ["classify", str(tmp_path / "a.png"), "-m", str(tmp_path / "model"), "--json"]
    arguments += ["--map", str(tmp_path / "map.png"), "--size", "64", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout.splitlines()[0])["top"]) == 5
    assert Image.open(tmp_path / "map.png").width > 600


def test_training_uses_token_labels(tiny) -> None:
    from dataclasses import replace

    module = Training(replace(tiny, token_labels=True), token_weight=1.0, ema=None)
    module.model.train()
    images, targets = torch.randn(2, 3, 64, 64), torch.rand(2, 7).softmax(-1)
    module.loss(images, targets).backward()
    assert module.model.token_classifier.weight.grad.any()
    assert module.model.classifier.weight.grad.any()


def test_training_starts_from_weights_with_a_new_head(tiny, tmp_path) -> None:
    from dataclasses import replace

    source = RMT(tiny)
    source.save_pretrained(tmp_path / "model")
    other = Training(replace(tiny, classes=3), weights=str(tmp_path / "model"), ema=None).model
    assert other.head.projection.weight.equal(source.head.projection.weight)
    assert other.classifier.out_features == 3


@pytest.mark.parametrize("name", ["decomposition-keeps-decay"])
def test_fast_claims_hold(name: str, tmp_path) -> None:
    claim = PAPER.claim(name)
    assert claim.measure is not None
    assert claim.measure(Run(output=tmp_path)).holds


def test_learns_real_digits_beyond_a_linear_classifier() -> None:
    """scikit-learn's 8 x 8 digits, enlarged: 60 steps of a small network."""
    from dataclasses import replace

    from image_classification_kit import accuracy, as_tensors, digits, fit, linear_baseline
    from rmt.claims import TOY

    arrays = digits()
    train, test = (
        as_tensors(*part, size=32, mean=0.3, std=0.35) for part in (arrays.train, arrays.test)
    )
    few = (train[0][:150], train[1][:150])
    torch.manual_seed(0)
    model = RMT(replace(TOY, dims=(16, 24, 32, 48), depths=(1, 1, 1, 1), projection=64))
    losses = fit(model, *train, steps=60, batch_size=32, lr=4e-3, shift=1)
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert accuracy(model, *test) > 0.85
    assert linear_baseline(few, test) > 0.5  # the baseline itself learns
    assert to_official_names(model.state_dict())


def test_unknown_claims_are_named() -> None:
    with pytest.raises(ValueError, match="it has sizes, decomposition-keeps-decay"):
        PAPER.claim("no-such-claim")
