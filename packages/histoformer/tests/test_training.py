"""Weather, pairs of images, and the training loop's own parts."""

from pathlib import Path

import pytest
import torch
from histoformer.data import WeatherData, WeatherPairs, truth_of
from histoformer.loss import pearson_loss
from histoformer.paper import PAPER
from histoformer.train import Progression, Training, losses
from histoformer.weather import WEATHER
from image_restoration_kit import psnr, write_picture
from image_restoration_kit.photographs import photograph


@pytest.mark.parametrize("kind", WEATHER)
def test_weather_degrades_a_photograph_and_repeats(kind: str) -> None:
    clean = photograph("coffee.png")[:, 100:164, 200:280]
    first, again, other = (
        WEATHER[kind](clean, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first.equal(other)
    assert first.shape == clean.shape
    assert 0 <= first.min() <= first.max() <= 1
    assert 5 < psnr(first, clean) < 35


def test_snow_and_rain_only_add_light_and_drops_leave_the_rest() -> None:
    clean, draw = torch.full((3, 40, 48), 0.3), torch.Generator().manual_seed(0)
    assert (WEATHER["snow"](clean, draw) >= clean - 1e-6).all()
    assert (WEATHER["rain"](clean, draw) >= clean - 1e-6).all()
    image = torch.rand(3, 40, 48)
    kept = (WEATHER["raindrops"](image, draw) == image).all(0).float().mean()
    assert 0.3 < kept < 1


def test_folders_of_the_field(tmp_path: Path) -> None:
    image = torch.rand(3, 20, 24)
    for name in ("gt/im_0001.png", "gt/7_clean.png", "gt/snow.png"):
        write_picture(tmp_path / name, image)
    for name in ("in/im_0001_s80_a04.png", "in/7_rain.png", "in/snow.png"):
        write_picture(tmp_path / name, image / 2)
    data = WeatherPairs(tmp_path / "gt", tmp_path / "in")
    assert data.pairs == [("7_rain", "7_clean"), ("im_0001_s80_a04", "im_0001"), ("snow", "snow")]
    low, high = data[1]
    assert (low - high / 2).abs().max() < 0.01
    patches = WeatherPairs(tmp_path / "gt", tmp_path / "in", patch=32, samples=5)
    assert len(patches) == 5
    low, high = patches[4]
    assert low.shape == high.shape == (3, 32, 32)
    assert (low - high / 2).abs().max() < 0.01
    with pytest.raises(IndexError):
        data[3]
    write_picture(tmp_path / "in/snow.png", image[:, :9])
    with pytest.raises(ValueError, match="snow has 9 x 24 pixels, its clean image snow 20 x 24"):
        data[2]
    with pytest.raises(ValueError, match="fog has no clean image among 1"):
        truth_of("fog", ["snow"])


def test_synthetic_pairs_are_new_in_training_and_fixed_in_evaluation() -> None:
    whole = WeatherPairs("drawn")
    assert whole[0][0].equal(whole[0][0])
    patches = WeatherPairs("drawn", patch=16, kinds=["haze"])
    assert not patches[0][0].equal(patches[0][0])
    with pytest.raises(ValueError, match="weather is rain, snow, haze, raindrops"):
        WeatherPairs("drawn", kinds=["fog"])
    with pytest.raises(ValueError, match="no test images"):
        WeatherData("drawn").test_dataloader()


def test_progression() -> None:
    stages = Progression(iterations=(2, 3), patches=(8, 16), batches=(4, 1))
    low, high = torch.rand(4, 3, 16, 16).repeat(2, 1, 1, 1, 1)
    shapes = [stages(low, high, step)[0].shape for step in (0, 1, 2, 99)]
    assert shapes == [(4, 3, 8, 8)] * 2 + [(1, 3, 16, 16)] * 2
    first, second = stages(low, high, 0)
    assert first.equal(second)
    with pytest.raises(ValueError, match="patches=16, batches=1: the data gives 4 of 8 x 8"):
        stages(first, second, 2)
    with pytest.raises(ValueError, match="needs an entry for each of iterations"):
        Progression(iterations=(2, 3), patches=(8,), batches=(4, 1))


def test_the_rate_stays_and_then_falls_along_a_cosine() -> None:
    module = Training(PAPER.tiny[0])
    rates = [3e-4 * module.share(step) for step in (0, 92_000, 196_000, 300_000, 400_000)]
    assert rates == pytest.approx([3e-4, 3e-4, (3e-4 + 1e-6) / 2, 1e-6, 1e-6])
    (optimizer,), _ = module.configure_optimizers()
    assert optimizer.defaults["weight_decay"] == 1e-4
    with pytest.raises(ValueError, match="constant=9: must be from 0 to below iterations=9"):
        Training(PAPER.tiny[0], constant=9, iterations=9)


def test_losses_add_up() -> None:
    x, y = torch.rand(2, 2, 3, 8, 8)
    loss, parts = losses(x, y, 0.5)
    assert loss == (x - y).abs().mean() + 0.5 * pearson_loss(x, y)
    assert set(parts) == {"l1", "pearson"}
