"""The comparison of the classifiers, on networks that hardly trained."""

import importlib
from pathlib import Path

import pytest
import torch
from attention_core import Paper, Run
from formers.comparisons import vision

SLUGS = ("resformer", "rmt", "sret", "tnt")


def few(data: str, side: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    classes = 10 if data == "digits" else 3
    images, labels = torch.randn(32, 1, side, side), torch.arange(32) % classes
    return (images, labels), (images[:20], labels[:20])


@pytest.fixture
def papers(monkeypatch: pytest.MonkeyPatch) -> list[Paper]:
    monkeypatch.setattr(vision, "_budget", lambda run: (2, 1))
    monkeypatch.setattr(vision, "_trained", {})
    monkeypatch.setattr(vision, "_images", few)
    return [importlib.import_module(f"{slug}.paper").PAPER for slug in SLUGS]


def test_every_classifier_is_tested_at_other_sizes_and_drawn(
    papers: list[Paper], tmp_path: Path
) -> None:
    run = Run(output=tmp_path)
    found = vision.accuracy_over_size("digits", papers, run)
    assert set(found.numbers["accuracies"]) == set(SLUGS)
    for over in found.numbers["accuracies"].values():
        assert [float(share) for share in over] == list(vision.SHARES)
        assert all(0 <= value <= 1 for values in over.values() for value in values)
    assert not found.holds  # two steps teach nothing
    drawn = vision.attention(papers, run)
    assert [path.stem for path in drawn.figures] == [
        f"{data}-{slug}" for data in vision.IMAGES for slug in SLUGS
    ]
    assert all(path.stat().st_size > 1000 for path in (*found.figures, *drawn.figures))
