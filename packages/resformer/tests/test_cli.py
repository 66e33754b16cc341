"""The command, several sizes in training, mixing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_classification_kit.commands import classification_app
from image_classification_kit.figures import attention_figure
from image_classification_kit.training import smooth
from PIL import Image
from resformer import ResFormer
from resformer.data import MultiSizeData, mix_views
from resformer.official import to_official_names
from resformer.train import Training
from timm.data import Mixup
from typer.testing import CliRunner

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))


def test_classify_and_sizes(tiny, tmp_path) -> None:
    model = ResFormer(replace(tiny, classes=4))
    torch.save(to_official_names(model.state_dict()), tmp_path / "model.pth")
    PICTURE.save(tmp_path / "a.png")
    app = classification_app("resformer", ResFormer.load, draw=attention_figure)
    given = ["-m", str(tmp_path / "model.pth"), "--device", "cpu", "--json"]
    seen = ["classify", str(tmp_path / "a.png"), *given, "--map", str(tmp_path / "map.png")]
    done = CliRunner().invoke(app, [*seen, "--size", "24"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout.splitlines()[0])["top"]) == 4
    assert Image.open(tmp_path / "map.png").width > 600
    done = CliRunner().invoke(app, ["sizes", "shapes", *given, "--sizes", "8,20"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["size"] for row in rows] == [8, 20]
    wrong = CliRunner().invoke(app, ["sizes", "shapes", *given, "--sizes", "10"])
    assert wrong.exit_code == 2
    assert "10 x 10 pixels: both sides must be multiples of the patch, 4" in wrong.output


@pytest.mark.parametrize("augmentation", ["imagenet", "shift", "none"])
@pytest.mark.parametrize("separate", [True, False])
def test_views_of_a_picture(augmentation: str, separate: bool) -> None:
    data = MultiSizeData("shapes", sizes=(48, 32, 16), separate=separate, augmentation=augmentation)
    views = data.train_transform()(PICTURE)
    assert [tuple(view.shape) for view in views] == [(3, 48, 48), (3, 32, 32), (3, 16, 16)]
    if augmentation == "shift":  # the same picture, or one that moved on its own
        small = torch.nn.functional.interpolate(views[0][None], (16, 16), mode="area")[0]
        related = torch.corrcoef(torch.stack([small.flatten(), views[2].flatten()]))[0, 1]
        assert (related > 0.9) or separate


@pytest.mark.parametrize("sizes", [(), (16, 32), (32, 32), (32, 0)])
def test_sizes_must_fall(sizes: tuple) -> None:
    with pytest.raises(ValueError, match="must fall from the largest to the smallest"):
        MultiSizeData("shapes", sizes=sizes)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_one_draw_mixes_all_views(mixup: float, cutmix: float) -> None:
    np.random.seed(3)  # noqa: NPY002 -- timm draws from it
    mix = Mixup(mixup, cutmix, num_classes=4, label_smoothing=0.1)
    ones = torch.arange(4.0)[:, None, None, None]
    views = [ones.expand(4, 1, side, side) for side in (32, 16)]
    targets = smooth(torch.arange(4), 4, 0.1)
    (large, small), mixed = mix_views(mix, views, targets)
    share = ((mixed[0] - targets[3]) / (targets[0] - targets[3]))[0]
    assert 0 < share < 1
    assert torch.allclose(mixed, share * targets + (1 - share) * targets.flip(0), atol=1e-6)
    assert abs(large[0].mean() - 3 * (1 - share)) < 1e-4  # image 3 shows through by the share
    if mixup:
        assert torch.allclose(large[:, :, :16, :16], small)
    else:  # the same box at half the size, to a pixel
        shrunk = torch.nn.functional.avg_pool2d(large, 2)
        assert ((shrunk - small).abs() > 2).float().mean() < 0.01
        assert set(small[0].unique().tolist()) == {0.0, 3.0}


def test_settings_of_training_are_checked(tiny) -> None:
    for changes, message in (
        ({"consistency": "kl"}, "consistency='kl': must be None or one of smooth-l1"),
        ({"target": "token"}, "target='token': must be one of cls, gap, logit"),
        ({"sizes_per_step": 0}, "sizes_per_step=0: must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Training(tiny, ema=None, **changes)


def module(tiny, **changes) -> Training:
    made = Training(tiny, ema=None, mixup=0.0, cutmix=0.0, **changes)
    made.logged = {}
    made.log_dict = made.logged.update
    made.log = lambda name, value, **_: made.logged.update({name: value})
    return made


def test_a_step_takes_every_size_or_a_window_of_them(tiny, monkeypatch) -> None:
    batch = [torch.randn(2, 3, side, side) for side in (16, 12, 8)], torch.tensor([0, 3])
    whole = module(tiny)
    loss = whole.training_step(batch, 0)
    assert loss.equal(sum(whole.logged[f"train_loss_{side}"] for side in (16, 12, 8)) / 3)
    assert not any(p.requires_grad for p in whole.model.blocks[-1].attention.local.parameters())
    assert all(p.requires_grad for p in module(tiny, target="gap").model.parameters())
    seen = []
    for step in range(3):
        two = module(tiny, sizes_per_step=2)
        monkeypatch.setattr(Training, "global_step", step)
        two.training_step(batch, 0)
        seen.append([int(name[11:]) for name in two.logged if name[11:].isdigit()])
    assert seen == [[16, 12], [12, 8], [16, 12]]


def test_training_starts_from_a_network_or_a_plain_vit(tiny, tmp_path) -> None:
    source = ResFormer(tiny)
    source.save_pretrained(tmp_path / "model")
    started = Training(replace(tiny, classes=3), weights=str(tmp_path / "model"), ema=None).model
    assert started.blocks[1].fc1.weight.equal(source.blocks[1].fc1.weight)
    assert started.classifier.out_features == 3
    vit = {k: v for k, v in to_official_names(source.state_dict()).items() if "get_v" not in k}
    vit = {k: v for k, v in vit.items() if "embed_layer" not in k}
    torch.save({**vit, "pos_embed": torch.zeros(1, 5, 24)}, tmp_path / "vit.pth")
    started = Training(tiny, weights=str(tmp_path / "vit.pth"), ema=None).model
    assert started.blocks[1].fc1.weight.equal(source.blocks[1].fc1.weight)
