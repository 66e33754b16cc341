"""The command line, as a person meets it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_classification_kit.commands import classification_app
from image_classification_kit.figures import map_figure
from PIL import Image
from typer.testing import CliRunner, Result

from .conftest import Tiny, TinyConfig


@pytest.fixture
def weights(tmp_path) -> Path:
    Tiny(TinyConfig()).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def run(*arguments: Any, draw: Any = None) -> Result:
    app = classification_app("tiny", Tiny.from_pretrained, draw=draw)
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def test_classify(folder, weights, tmp_path) -> None:
    (tmp_path / "names.txt").write_text("disc\nsquare\ntriangle\ncross\n")
    done = run("classify", folder / "val", "-m", weights, "--json", "--top", 2, "--size", 32)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 6
    assert len(rows[0]["top"]) == 2
    assert rows[0]["top"][0]["probability"] >= rows[0]["top"][1]["probability"]
    named = run(
        "classify", folder / "val" / "red", "-m", weights, "--labels", tmp_path / "names.txt"
    )
    assert "triangle" in named.output
    assert "%" in named.output


def test_classify_goes_on_after_a_damaged_file(folder, weights) -> None:
    (folder / "val" / "red" / "0.png").write_text("no picture")
    done = run("classify", folder / "val" / "red", "-m", weights, "--json")
    assert done.exit_code == 2
    assert "0.png is not an image" in done.output
    assert sum(line.startswith("{") for line in done.stdout.splitlines()) == 2


def test_trained_networks_bring_preprocessing_and_names(folder, weights) -> None:
    card = {"size": 24, "crop": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": list("abcd")}
    (weights / "preprocessing.json").write_text(json.dumps(card))
    done = run("classify", folder / "val" / "red" / "1.png", "-m", weights, "--json")
    assert {row["name"] for row in json.loads(done.stdout)["top"]} == set("abcd")


def test_map(folder, weights, tmp_path) -> None:
    seen = []

    def draw(model: Any, images: Any, picture: Any, path: Path) -> None:
        seen.append(images)
        map_figure(picture, {"stem": model.stem(images)[0, 0]}, path)

    image, out = folder / "val" / "red" / "0.png", tmp_path / "map.png"
    done = run("classify", image, "-m", weights, "--map", out, draw=draw)
    assert done.exit_code == 0, done.output
    assert Image.open(out).width > 300
    card = {"size": 24, "crop": 1.0, "mean": [0.5] * 3, "std": [0.25] * 3}
    (weights / "preprocessing.json").write_text(json.dumps(card))
    assert run("classify", image, "-m", weights, "--map", out, draw=draw).exit_code == 0
    card = {**card, "mean": [0.0] * 3, "std": [1.0] * 3}
    (weights / "preprocessing.json").write_text(json.dumps(card))
    assert run("classify", image, "-m", weights, "--map", out, draw=draw).exit_code == 0
    torch.testing.assert_close(seen[1], (seen[2] - 0.5) / 0.25)
    both = run("classify", folder / "val", "-m", weights, "--map", out, draw=draw)
    assert both.exit_code == 2
    assert "--map takes one image, not 6" in both.output
    assert "tiny draws no map" in run("classify", image, "-m", weights, "--map", out).output


def test_evaluate_at_several_sizes(weights) -> None:
    done = run("evaluate", "shapes", "-m", weights, "--size", 16, "--size", 48, "--json")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(row["size"], row["images"]) for row in rows] == [(16, 64), (48, 64)]
    assert rows[0]["top5"] == 1
    own = run("evaluate", "shapes", "-m", weights, "--size", 0)
    assert "own" in own.output


def test_accuracy_over_sizes_of_several_networks(weights, tmp_path) -> None:
    Tiny(TinyConfig()).save_pretrained(tmp_path / "other")
    networks = ["-m", weights, "-m", tmp_path / "other"]
    done = run("sizes", "shapes", *networks, "--sizes", "16,32", "--json")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(row["checkpoint"][-5:], row["size"]) for row in rows] == [
        (f"/{name}"[-5:], size) for name in ("tiny", "other") for size in (16, 32)
    ]
    one = json.loads(
        run("evaluate", "shapes", "-m", weights, "--size", 32, "--json").stdout.splitlines()[-1]
    )
    assert rows[1]["top1"] == one["top1"]
    drawn = run("sizes", "shapes", *networks, "--sizes", "16", "--out", tmp_path / "sizes.png")
    assert f"{rows[0]['top1']:.2%}" in drawn.output
    assert Image.open(tmp_path / "sizes.png").width > 300


def test_networks_bound_to_a_size_are_resampled_to_each(weights, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(Tiny, "resized", lambda self, size: asked.append(size) or self, False)
    assert run("sizes", "shapes", "-m", weights, "--sizes", "16, 24").exit_code == 0
    assert asked == [(16, 16), (24, 24)]


def test_features_and_convert(folder, weights, tmp_path) -> None:
    done = run("features", folder / "val", "-m", weights, "--out", tmp_path / "f.npz")
    assert done.exit_code == 0, done.output
    found = np.load(tmp_path / "f.npz")
    assert found["features"].shape == (6, 8)
    assert len(found["names"]) == 6
    app = classification_app("tiny", Tiny.from_pretrained)
    done = CliRunner().invoke(app, ["convert", str(weights), "--out", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    assert Tiny.from_pretrained(tmp_path / "again").config == TinyConfig()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "gone.jpg", "-m", "WEIGHTS"], "no file or folder at gone.jpg"),
        (["classify", "DATA", "-m", "gone"], "gone"),
        (["classify", "DATA", "-m", "WEIGHTS", "--size", "-3"], "size=-3: must be at least 1"),
        (["classify", "DATA", "-m", "WEIGHTS", "--labels", "gone.txt"], "gone.txt"),
        (["evaluate", "gone", "-m", "WEIGHTS"], "no packaged data set; those are digits"),
        (["evaluate", "DATA", "-m", "WEIGHTS"], "4 classes apart, the data has 2"),
        (["sizes", "shapes", "-m", "WEIGHTS", "--sizes", "16,big"], "--sizes 16,big: must be"),
        (["sizes", "DATA", "-m", "WEIGHTS", "--sizes", "16"], "4 classes apart, the data has 2"),
        (["features", "gone", "-m", "WEIGHTS", "--out", "x.npz"], "no file or folder at gone"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, weights, arguments, message) -> None:
    places = {"DATA": folder, "WEIGHTS": weights}
    done = run(*[places.get(argument, argument) for argument in arguments])
    assert done.exit_code == 2, done.output
    assert message in done.output.replace("\n", " ")
    assert "Traceback" not in done.output
