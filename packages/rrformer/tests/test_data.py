import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from image_restoration_kit import write_picture
from image_restoration_kit.data import DrawnImages
from image_restoration_kit.metrics import psnr, ssim
from rrformer import benchmark as module
from rrformer.benchmark import benchmark, pairs, score
from rrformer.data import UHDRR, Reflections, blend, blur, uhdrr_pairs
from rrformer.model import RRFormerConfig
from rrformer.train import ReflectionData, Training

ENTRY = {"blended": "a.png", "transmission_layer": "b.png", "reflection_layer": "", "alpha": 0.5}


@pytest.fixture
def uhdrr(tmp_path: Path) -> Path:
    folder = tmp_path / "4k" / "train"
    image = torch.rand(3, 20, 24)
    write_picture(folder / "blended" / "a.png", image)
    write_picture(folder / "transmission_layer" / "b.png", image)
    (folder / "4k_train_results_list.json").write_text(json.dumps([ENTRY]))
    return tmp_path


def test_published_lists_tell_the_pairs_and_crops_match(uhdrr: Path) -> None:
    data = UHDRR(uhdrr_pairs(uhdrr), crop=9)
    blended, transmission = data[0]
    assert blended.shape == (3, 9, 9)
    assert blended.equal(transmission)


def test_cut_test_images_are_found(uhdrr: Path) -> None:
    folder = uhdrr / "8k" / "test" / "cropped"
    for kind in ("blended", "transmission_layer"):
        write_picture(folder / kind / "a.png", torch.rand(3, 8, 8))
    entry = {**ENTRY, "transmission_layer": "a.png"}
    (folder.parent / "8k_test_crop_results_list.json").write_text(json.dumps([entry]))
    assert [pair.name for pair in uhdrr_pairs(uhdrr, "8k", "test")] == ["a"]


def test_data_that_does_not_fit_is_named(uhdrr: Path) -> None:
    with pytest.raises(ValueError, match="size='2k': must be one of 4k, 8k"):
        uhdrr_pairs(uhdrr, "2k")
    with pytest.raises(FileNotFoundError, match=r"no 4k_test_results_list\.json in"):
        uhdrr_pairs(uhdrr, "4k", "test")
    with pytest.raises(ValueError, match="smaller than crops of 64"):
        UHDRR(uhdrr_pairs(uhdrr), crop=64)[0]
    write_picture(uhdrr / "4k/train/transmission_layer/b.png", torch.rand(3, 20, 25))
    with pytest.raises(ValueError, match="a pair has one size"):
        UHDRR(uhdrr_pairs(uhdrr))[0]
    (uhdrr / "4k/train/blended/a.png").unlink()
    with pytest.raises(FileNotFoundError, match="lists 1 missing images, such as"):
        uhdrr_pairs(uhdrr)
    (uhdrr / "4k/train/4k_train_results_list.json").write_text("[3]")
    with pytest.raises(ValueError, match="must be a list of objects with blended"):
        uhdrr_pairs(uhdrr)
    with pytest.raises(ValueError, match="1 photographs: a reflection needs another one"):
        Reflections(DrawnImages(count=1), 8)
    with pytest.raises(ValueError, match="root=None, photographs=None: give one of them"):
        ReflectionData()
    with pytest.raises(ValueError, match="vgg=None: the hypercolumn and the feature loss need"):
        Training(RRFormerConfig(hypercolumn=False))


def test_blur_is_a_gaussian_that_keeps_the_mean() -> None:
    point = torch.zeros(1, 31, 31)
    point[0, 15, 15] = 1
    found = blur(point, 2.0)[0]
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found[15, 17] / found[15, 15] == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert found[15, 21] == 0


def test_blended_light_adds_up_and_does_not_exceed_white() -> None:
    dark, lamp = torch.full((3, 16, 16), 0.2), torch.full((3, 16, 16), 0.3)
    torch.testing.assert_close(blend(dark, lamp, 2.0), torch.full((3, 16, 16), 0.5))
    bright = blend(torch.full((3, 16, 16), 0.9), lamp, 2.0)
    # 0.2 above white on average: 1.3 times as much comes off the reflection.
    torch.testing.assert_close(bright, torch.full((3, 16, 16), 0.94))


def test_fixed_reflections_do_not_change_and_leave_the_generators_alone() -> None:
    data = Reflections(DrawnImages(), 16, fixed=True)
    random.seed(3)
    expected = random.random()
    random.seed(3)
    first, again = data[2], data[2]
    assert first[0].equal(again[0])
    assert random.random() == expected
    assert not Reflections(DrawnImages(), 16)[2][0].equal(first[0])


def test_scores_in_strips_are_those_of_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.integers(0, 256, (3, 53, 40), dtype=np.uint8)) for _ in range(2))
    monkeypatch.setattr(module, "STRIP", 17)
    found = score(a, b, lambda x, y: (x - y).abs().mean())
    assert found.psnr == pytest.approx(psnr(a, b, on_luma=False))
    assert found.ssim == pytest.approx(ssim(a, b, on_luma=False))
    assert found.lpips is not None
    assert score(a, a).psnr == math.inf


def test_benchmarks_name_what_is_missing_or_of_another_size(tmp_path: Path) -> None:
    write_picture(tmp_path / "truth" / "a.png", torch.rand(3, 20, 20))
    write_picture(tmp_path / "truth" / "b.png", torch.rand(3, 20, 20))
    write_picture(tmp_path / "found" / "a.png", torch.rand(3, 20, 21))
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 predictions, such as b"):
        pairs(tmp_path / "found", tmp_path / "truth")
    write_picture(tmp_path / "found" / "b.png", torch.rand(3, 20, 20))
    with pytest.raises(ValueError, match=r"a\.png: .*sizes differ"):
        benchmark(pairs(tmp_path / "found", tmp_path / "truth"))
