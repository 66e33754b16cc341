"""What super-resolution packages do alike: their command, starting weights, a short training."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_core import Paper, SuperResolver, strips, windows
from formers.comparisons import super_resolution
from image_restoration_kit import enlarge, quantise, read_picture, resize, write_picture
from image_restoration_kit.families import FAMILIES
from image_restoration_kit.short_runs import BicubicSkip

from .conftest import PACKAGES

FAMILY = [
    slug
    for slug in PACKAGES
    if any(
        issubclass(model, SuperResolver)
        for model in importlib.import_module(f"{slug}.paper").PAPER.models
    )
]
ENTRIES = {"DRCT": "layers.0.swin1.attn.qkv.weight", "HAT": "layers.0.overlap_attn.qkv.weight"}
"""An entry that only one family's checkpoints have."""


@pytest.fixture(params=FAMILY)
def paper(request: pytest.FixtureRequest) -> Paper:
    return importlib.import_module(f"{request.param}.paper").PAPER


@pytest.fixture
def folder(paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds a network, ``net``, and a photograph; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    paper.build(paper.tiny[0]).save_pretrained(tmp_path / "net")
    write_picture(tmp_path / "photo.png", torch.rand(3, 13, 22))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, slug: str, line: str) -> int:
    monkeypatch.setattr(sys, "argv", [slug, *line.split()])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"{slug}.cli").main()
    return int(stop.value.code or 0)


def test_the_family_is_found() -> None:
    assert {slug.lower() for slug in FAMILIES} >= set(FAMILY) >= {"drct", "hat"}


def test_upscale(paper: Paper, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, paper.slug, "upscale photo.png -m net -o big.png --device cpu")
    assert done == 0
    network: Any = paper.models[0].load("net")
    expected = quantise(enlarge(network, read_picture("photo.png").color[None])[0])
    assert quantise(read_picture("big.png").color).equal(expected)


def test_a_checkpoint_of_something_else_is_named(
    paper: Paper,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = paper.models[0].__name__
    torch.save({"params": {"conv.weight": torch.zeros(3)}}, "other.pth")
    assert run(monkeypatch, paper.slug, "upscale photo.png -m other.pth -o big.png") == 2
    assert f"error: not a {name} checkpoint: " in capsys.readouterr().err
    other = next(network for network in ENTRIES if network != name)
    torch.save({"params": {ENTRIES[other]: torch.zeros(3)}}, "other.pth")
    assert run(monkeypatch, paper.slug, "upscale photo.png -m other.pth -o big.png") == 2
    expected = f"not a {name} checkpoint but one of {other}: the package {other.lower()} loads it"
    assert expected in capsys.readouterr().err
    assert run(monkeypatch, paper.slug, "evaluate --hr . -m missing.pth") == 2
    assert "no checkpoint file at missing.pth" in capsys.readouterr().err


def test_training_starts_from_weights_of_another_scale(paper: Paper, folder: Path) -> None:
    training: Any = importlib.import_module(f"{paper.slug}.train").Training
    started = training(replace(paper.tiny[0], scale=4), start="net").model
    source = paper.models[0].load("net")
    assert started.scale == 4
    for name, value in source.groups.state_dict().items():
        assert started.groups.state_dict()[name].equal(value), name
    other = next(c for c in paper.tiny if not same_body(paper, c, paper.tiny[0]))
    with pytest.raises(ValueError, match="the body of the weights to start from"):
        training(other, start="net")


def same_body(paper: Paper, one: Any, other: Any) -> bool:
    bodies = [paper.build(config).groups for config in (one, other)]
    shapes = [{n: p.shape for n, p in body.named_parameters()} for body in bodies]
    return shapes[0] == shapes[1]


def test_a_few_steps_lower_the_loss(paper: Paper) -> None:
    model = network(paper).train()
    image = torch.rand(2, 3, 16, 16)
    target = F.interpolate(image, scale_factor=2, mode="bicubic")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = (model(image) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_patches_of_the_comparison_are_whole_windows(paper: Paper) -> None:
    for scale in super_resolution.SCALES:
        assert super_resolution.PATCH % super_resolution.small(paper, scale).multiple == 0


def test_beside_the_bicubic_image_it_starts_from_that_image(paper: Paper) -> None:
    image = torch.rand(1, 3, 16, 16)
    started = BicubicSkip(network(paper))
    torch.testing.assert_close(started(image), resize(image, 2), atol=1e-5, rtol=0)


def test_gradients_under_autocast_are_those_of_float32(paper: Paper) -> None:
    model, image = network(paper).train(), torch.rand(2, 3, 16, 16)
    wanted = [p for p in model.parameters() if p.requires_grad]
    exact = torch.autograd.grad(model(image).square().mean(), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        half = torch.autograd.grad(model(image).float().square().mean(), wanted)
    for one, other in zip(half[-4:], exact[-4:], strict=True):
        assert (one - other).abs().max() < 0.1 * other.abs().max()


def network(paper: Paper) -> Any:
    """The first tiny network, enlarging twice, without stochastic depth."""
    config = paper.tiny[0]
    still = {"drop_path": 0.0} if hasattr(config, "drop_path") else {}
    return paper.build(replace(config, scale=2, **still))


@pytest.mark.parametrize("batch", [1, 2])
def test_pieces_give_what_the_whole_gives(
    paper: Paper, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    for config in paper.tiny:
        network: Any = paper.build(config).double().eval()
        side = network.multiple * -(-50 // network.multiple)
        image = torch.rand(batch, network.channels, side, network.multiple, dtype=torch.float64)
        if network.positions is not None:
            continue
        whole = network(image)
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(strips, "STRIP_BYTES", 1)
            patch.setattr(windows, "PIECE_BYTES", 1)
            torch.testing.assert_close(network(image), whole)
