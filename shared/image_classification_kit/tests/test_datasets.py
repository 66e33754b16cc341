"""Folders by class and the data sets that packages carry."""

import numpy as np
import pytest
import torch
from image_classification_kit import (
    ImageFolder,
    Preprocessing,
    accuracy,
    as_tensors,
    digits,
    evaluate,
    fit,
    linear_baseline,
    mnist5k,
    open_images,
    predict,
    shapes,
    textures,
)
from image_classification_kit.evaluation import hits, require_classes
from torch import nn
from torch.utils.data import TensorDataset

STEPS = Preprocessing(size=16)


def test_folders_by_class(folder) -> None:
    train = open_images(folder, "train", STEPS)
    assert (train.classes, len(train)) == (["blue", "red"], 6)
    image, label = train[5]
    assert image.shape == (3, 16, 16)
    assert label == 1
    assert len(open_images(folder / "val", "val", STEPS)) == 6  # classes alone are enough


def test_folders_in_another_form_are_named(folder) -> None:
    with pytest.raises(FileNotFoundError, match="no packaged data set; those are digits, mnist5k"):
        open_images("imagenet", "val", STEPS)
    with pytest.raises(ValueError, match="has no folder train"):
        open_images(folder / "val", "train", STEPS)
    with pytest.raises(ValueError, match="holds no folders: one per class"):
        ImageFolder(folder / "val" / "red", STEPS)
    (folder / "val" / "void").mkdir()
    with pytest.raises(ValueError, match="void holds no images"):
        ImageFolder(folder / "val", STEPS)
    with pytest.raises(FileNotFoundError, match="no folder of images at"):
        ImageFolder(folder / "gone", STEPS)


def test_packaged_digits() -> None:
    for arrays, sizes, side in ((digits(), (1437, 360), 8), (mnist5k(), (4000, 1000), 28)):
        assert tuple(len(labels) for _, labels in (arrays.train, arrays.test)) == sizes
        assert arrays.train[0].shape[1:] == (side, side)
        assert arrays.train[0].dtype == np.uint8
        assert arrays.train[0].max() == 255
        assert set(arrays.test[1].tolist()) == set(range(10))
        together = np.concatenate([arrays.train[0], arrays.test[0]]).reshape(sum(sizes), -1)
        again = [part.reshape(len(part), -1) for part in (arrays.train[0], arrays.test[0])]
        assert np.array_equal(together, np.concatenate(again))
    assert np.array_equal(digits().test[1], digits().test[1])


def test_texture_halves_are_apart() -> None:
    from skimage import data

    arrays = textures(32, each=5)
    assert arrays.train[0].shape == (15, 32, 32)
    brick = data.brick()
    windows = np.lib.stride_tricks.sliding_window_view(brick, (32, 32))
    for part, columns in ((arrays.train, slice(0, 209)), (arrays.test, slice(272, 481))):
        crop = part[0][0]
        corner = np.argwhere(windows[:, columns, 0, 0] == crop[0, 0])
        assert any(np.array_equal(windows[:, columns][y, x], crop) for y, x in corner)
    with pytest.raises(ValueError, match="side=200: must be from 1 to 128"):
        textures(200)


def test_a_linear_classifier_and_fit_learn_the_digits() -> None:
    arrays = digits()
    train, test = (as_tensors(*p, size=8, mean=0.3, std=0.35) for p in (arrays.train, arrays.test))
    assert linear_baseline(train, test) > 0.93
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        losses = fit(model, *train, steps=80, lr=1e-2, shift=0, seed=3)
        found.append((losses[-1], accuracy(model, *test)))
    assert found[0] == found[1]
    assert found[0][1] > 0.85


def test_shapes_are_told_apart_by_their_outline() -> None:
    arrays = shapes(32, 8, 4)
    assert arrays.train[0].shape == (8, 32, 32, 3)
    assert arrays.train[1].tolist() == [0, 1, 2, 3] * 2
    assert np.array_equal(arrays.test[0], shapes(32, 8, 4).test[0])


def test_accuracy_counts_the_five_best() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1, 0]] * 3)
    first, five = hits(logits, torch.tensor([0, 4, 5]))
    assert first.tolist() == [True, False, False]
    assert five.tolist() == [True, True, False]
    data = TensorDataset(logits, torch.tensor([0, 4, 5]))
    model = nn.Linear(7, 7, bias=False)
    nn.init.eye_(model.weight)
    found = evaluate(model.train(), data, batch_size=2)
    assert (found.top1, found.top5, found.images) == (1 / 3, 2 / 3, 3)
    assert model.training
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(model, TensorDataset(logits[:0], torch.zeros(0)))
    flat = nn.Sequential(nn.Flatten(), model)
    assert predict(flat, logits[:, :, None, None], top=2)[0].classes == (0, 1)
    with pytest.raises(ValueError, match="3 classes apart, the data has 2: a, b"):
        require_classes(3, ["a", "b"])
