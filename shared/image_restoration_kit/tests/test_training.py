from pathlib import Path
from typing import Any

import pytest
import torch
from attention_core import PaperModel
from image_restoration_kit.short_runs import BicubicSkip, short_run
from image_restoration_kit.training import SuperResolutionData, SuperResolutionModule
from lightning.pytorch import Trainer


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


class Network(PaperModel):
    def __init__(self, config: Any, network: Any) -> None:
        torch.nn.Module.__init__(self)
        self.network = network
        self.scale, self.channels = network.scale, network.channels
        self.multiple, self.reach = network.multiple, network.reach

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image)


def test_the_loop_lowers_the_loss_and_tells_psnr(toys: Any, tmp_path: Path) -> None:
    module = SuperResolutionModule(Network(None, toys()), lr=3e-3, milestones=[8])
    data = SuperResolutionData("drawn", scale=2, patch=8, batch_size=4, samples=48, val_hr="drawn")
    run = trainer(tmp_path, max_epochs=2)
    before = run.validate(module, data, verbose=False)[0]["val_psnr"]
    run.fit(module, data)
    after = run.test(module, data, verbose=False)[0]
    assert after["test_psnr"] > before + 3
    assert 0 < after["test_ssim"] <= 1
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1.5e-3)
    assert run.optimizers[0].param_groups[0]["betas"] == (0.9, 0.99)


def test_evaluation_in_tiles_is_the_same(toys: Any, tmp_path: Path) -> None:
    data = SuperResolutionData("drawn", scale=2, val_hr="drawn")
    whole, tiled = (
        trainer(tmp_path).validate(
            SuperResolutionModule(Network(None, toys()), tile=tile), data, verbose=False
        )
        for tile in (None, 32)
    )
    assert whole[0]["val_psnr"] == pytest.approx(tiled[0]["val_psnr"], abs=1e-4)


def test_messages(toys: Any, tmp_path: Path) -> None:
    module = SuperResolutionModule(Network(None, toys()))
    with pytest.raises(ValueError, match="no test images"):
        trainer(tmp_path).test(module, SuperResolutionData("drawn", scale=2), verbose=False)
    other = SuperResolutionData("drawn", scale=4, val_hr="drawn")
    with pytest.raises(ValueError, match="the network enlarges 2 times"):
        trainer(tmp_path).validate(module, other, verbose=False)


def test_the_skip_starts_as_bicubic(toys: Any) -> None:
    from image_restoration_kit import resize

    image = torch.rand(1, 3, 8, 8)
    assert BicubicSkip(toys())(image).allclose(resize(image, 2))


def test_short_runs_learn_and_repeat(toys: Any) -> None:
    options = {"steps": 60, "scale": 2, "batch": 4, "side": 128}
    run = short_run(toys, seed=0, **options)
    assert run.loss_ratio < 1
    assert run.gain > 0
    assert set(run.psnr) == {"astronaut.png", "chelsea.png"}
    assert short_run(toys, seed=0, **options).losses == run.losses
    assert short_run(toys, seed=1, **options).losses != run.losses
