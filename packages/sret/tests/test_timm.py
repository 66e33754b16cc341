"""What timm's users expect of a backbone."""

from dataclasses import replace

import pytest
import sret.timm
import timm
import torch
from sret import SReT, SReTConfig
from sret.official import to_official_names
from sret.timm import TimmSReT

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny: SReTConfig) -> TimmSReT:
    return TimmSReT(tiny, num_classes=7).eval()


def test_names_are_registered() -> None:
    assert timm.list_models("sret*") == sorted(SReT.variants)
    with torch.device("meta"):
        model = timm.create_model("sret_s", num_classes=10, in_chans=1, drop_path_rate=0.2)
        large = timm.create_model("sret_s_wo_slice_384")
        wide = timm.create_model("sret_t", img_size=(224, 448))
    assert model.config == replace(SReT.variants["sret_s"], classes=10, channels=1, drop_path=0.2)
    assert large.positions.shape == (1, 126, 48, 48)
    assert wide.positions.shape == (1, 64, 28, 56)
    assert large.pretrained_cfg["input_size"] == (3, 384, 384)


def test_levels_and_pools(tiny: SReTConfig, model: TimmSReT) -> None:
    plain = SReT(tiny).eval()
    plain.load_state_dict(model.state_dict())
    final, maps = model.forward_intermediates(IMAGES)
    assert final.equal(plain.forward_features(IMAGES))
    assert [tuple(x.shape) for x in maps] == [(1, 8, 8, 8), (1, 16, 4, 4)]
    assert model(IMAGES).equal(plain(IMAGES))
    model.reset_classifier(3)
    assert model(IMAGES).shape == (1, 3)
    model.reset_classifier(0, "")
    assert model(IMAGES).equal(plain.norm(final))


def test_authors_file_by_timms_way(tiny: SReTConfig, tmp_path, monkeypatch) -> None:
    config = replace(tiny, classes=1000)
    monkeypatch.setitem(sret.timm.VARIANTS, "sret_t", config)
    source = SReT(config).eval()
    theirs = to_official_names(source.state_dict(), config)
    torch.save({"model": theirs}, tmp_path / "SReT_T.pth")
    overlay = {"file": str(tmp_path / "SReT_T.pth")}
    options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    found = timm.create_model("sret_t", img_size=64, **options).eval()
    assert found(IMAGES).equal(source(IMAGES))
    other = timm.create_model("sret_t", img_size=(64, 96), num_classes=5, in_chans=1, **options)
    assert other.positions.equal(source.resized((64, 96)).positions)
    grey = source.stem[0][0].weight.sum(1, keepdim=True)
    assert torch.allclose(other.stem[0][0].weight, grey, atol=1e-6)
    assert sret.timm.weights(source.state_dict(), source).keys() == source.state_dict().keys()


def test_every_parameter_belongs_to_a_layer_group(model: TimmSReT) -> None:
    from timm.optim._param_groups import param_groups_layer_decay

    groups = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.8
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
