"""Distillation, training from weights, the command, the fast claims."""

import json
from dataclasses import replace

import pytest
import torch
from attention_core import Run, count_parameters
from image_classification_kit.commands import classification_app
from PIL import Image
from sret import SReT, Teacher, distillation_loss
from sret.claims import DEEP, TOY
from sret.cli import draw_attention, load
from sret.paper import PAPER
from sret.train import Training
from torch import nn
from typer.testing import CliRunner

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def colour_teacher() -> nn.Module:
    """For ``module:function``: looks at the mean colour."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(3, 7))


def test_teacher_is_frozen_and_not_part_of_the_student(tiny) -> None:
    module = Training(tiny, teacher=f"{__name__}:colour_teacher", temperature=2.0, ema=None)
    teacher = module.teacher[0]
    assert not any("teacher" in key for key in module.state_dict())
    module.train()
    assert not any(m.training for m in teacher.modules())
    module.model.eval()
    loss = module.loss(IMAGES, torch.rand(2, 7))
    expected = distillation_loss(module.model(IMAGES), teacher(IMAGES), temperature=2.0)
    assert torch.allclose(loss, expected)
    loss.backward()
    assert module.model.classifier.weight.grad.any()
    assert all(p.grad is None for p in teacher.parameters())


def test_without_a_teacher_labels_are_learnt(tiny) -> None:
    module, targets = Training(tiny, ema=None), torch.rand(2, 7).softmax(-1)
    module.model.eval()
    expected = nn.functional.cross_entropy(module.model(IMAGES), targets)
    assert torch.allclose(module.loss(IMAGES, targets), expected)


def test_teacher_sees_its_own_normalisation() -> None:
    ours, theirs = {"student_mean": [0.2], "student_std": [0.5]}, {"mean": [0.5], "std": [0.25]}
    teacher = Teacher(lambda images: (images.flatten(1), "more"), **ours, **theirs)
    pixels = torch.rand(2, 1, 4, 4)
    assert torch.allclose(
        teacher((pixels - 0.2) / 0.5), ((pixels - 0.5) / 0.25).flatten(1), atol=1e-6
    )


def test_teachers_by_name(tiny, tmp_path) -> None:
    import timm

    network = timm.create_model("resnet10t", num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    teacher = Teacher.named("resnet10t", weights=str(tmp_path / "teacher.pth"))
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    wants = timm.data.resolve_model_data_config(network)
    m, s = (torch.tensor(wants[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        expected = network((IMAGES * std + mean - m) / s)
    assert torch.allclose(teacher(IMAGES), expected, atol=1e-4)
    with pytest.raises(ValueError, match="teacher='no_such_net': timm has no such network"):
        Teacher.named("no_such_net")
    with pytest.raises(ValueError, match="teacher='no_such_module:f': No module named"):
        Teacher.named("no_such_module:f")


def test_training_starts_from_weights_of_another_size(tiny, tmp_path) -> None:
    source = SReT(tiny)
    source.save_pretrained(tmp_path / "model")
    network = replace(tiny, classes=3, image_size=(64, 96))
    model = Training(network, weights=str(tmp_path / "model"), ema=None).model
    assert model.positions.equal(source.resized((64, 96)).positions)
    assert model.classifier.out_features == 3
    assert model.stem[2][0].weight.equal(source.stem[2][0].weight)


def test_classify_draws_what_the_middle_attends_to(tiny, tmp_path) -> None:
    SReT(tiny).save_pretrained(tmp_path / "model")
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "a.png")
    app = classification_app("sret", load, draw=draw_attention)
    arguments = ["classify", str(tmp_path / "a.png"), "-m", str(tmp_path / "model"), "--json"]
    arguments += ["--map", str(tmp_path / "map.png"), "--size", "64", "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout.splitlines()[0])["top"]) == 5
    assert Image.open(tmp_path / "map.png").width > 600


@pytest.mark.parametrize("name", ["sizes", "slicing-saves", "recursion-is-free"])
def test_fast_claims_hold(name: str, tmp_path) -> None:
    claim = PAPER.claim(name)
    assert claim.measure is not None
    assert claim.measure(Run(output=tmp_path)).holds


def test_a_hundred_layers_run_and_train() -> None:
    assert all(2 * sum(config.depths) == layers for layers, config in DEEP.items())
    model = SReT(replace(DEEP[100], dims=(8, 8, 8), heads=(1, 1, 1), image_size=(32, 32)))
    model.set_grad_checkpointing()
    model.train()(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.device("meta"):
        counts = {layers: count_parameters(SReT(config)) for layers, config in DEEP.items()}
    assert counts == {100: 13_165_728, 1000: 13_848_963}


def test_learns_real_digits() -> None:
    """scikit-learn's 8 x 8 digits, enlarged: 40 steps of a small network."""
    from image_classification_kit import accuracy, as_tensors, digits, fit

    arrays = digits()
    train, test = (
        as_tensors(*part, size=32, mean=0.3, std=0.35) for part in (arrays.train, arrays.test)
    )
    model = SReT(replace(TOY, image_size=(32, 32), slices=(2, 2, 1), dims=(16, 32, 64)))
    losses = fit(model, *train, steps=40, batch_size=32, lr=4e-3, shift=0)
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
    assert accuracy(model, *test) > 0.7
