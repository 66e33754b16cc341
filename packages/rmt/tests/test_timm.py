"""What timm's users expect of a backbone."""

from dataclasses import replace

import pytest
import rmt.timm
import timm
import torch
from rmt import RMT
from rmt.official import to_official_names
from rmt.timm import TimmRMT

IMAGES = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny) -> TimmRMT:
    return TimmRMT(tiny, num_classes=7).eval()


def test_names_are_registered() -> None:
    assert timm.list_models("rmt*") == ["rmt_b", "rmt_l", "rmt_s", "rmt_t"]
    assert rmt.timm.default_cfgs["rmt_s"].default.classifier == "classifier"


def test_created_by_name() -> None:
    with torch.device("meta"):
        model = timm.create_model("rmt_s", num_classes=10, in_chans=1, drop_path_rate=0.3)
    assert model.classifier.out_features == 10
    assert model.stem[0][0].in_channels == 1
    assert model.config.drop_path == 0.3
    assert model.pretrained_cfg["input_size"] == (3, 224, 224)
    assert timm.data.resolve_model_data_config(model)["crop_pct"] == 0.875
    with pytest.raises(TypeError, match="no_such_argument"):
        timm.create_model("rmt_t", no_such_argument=1)


def test_features_only() -> None:
    encoder = timm.create_model("rmt_t", features_only=True, out_indices=(1, 2)).eval()
    assert encoder.feature_info.channels() == [128, 256]
    assert encoder.feature_info.reduction() == [8, 16]
    with torch.no_grad():
        maps = encoder(IMAGES)
    assert [list(x.shape) for x in maps] == [[1, 128, 8, 6], [1, 256, 4, 3]]


def test_is_the_same_network(tiny, model: TimmRMT) -> None:
    plain = RMT(tiny).eval()
    plain.load_state_dict(model.state_dict())
    assert plain(IMAGES).equal(model(IMAGES))
    final, maps = model.forward_intermediates(IMAGES, indices=[0, 3])
    assert final.equal(plain.forward_features(IMAGES))
    assert maps[1].equal(final.permute(0, 3, 1, 2))
    assert (
        len(model.forward_intermediates(IMAGES, 1, stop_early=True, intermediates_only=True)) == 1
    )
    with pytest.raises(ValueError, match="output_fmt='NLC'"):
        model.forward_intermediates(IMAGES, output_fmt="NLC")


def test_heads_are_replaced(model: TimmRMT) -> None:
    model.reset_classifier(3)
    assert model(IMAGES).shape == (1, 3)
    assert model.get_classifier() is model.classifier
    model.reset_classifier(0)
    assert model(IMAGES).shape == (1, 20)
    model.reset_classifier(0, "")
    assert model(IMAGES).shape == (1, 2, 2, 20)
    with pytest.raises(ValueError, match="global_pool='max'"):
        model.reset_classifier(0, "max")


def test_authors_file_by_timms_way(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(rmt.timm.CLASSIFIERS, "rmt_t", replace(tiny, classes=1000))
    monkeypatch.setitem(rmt.official.VARIANTS, "rmt_t", replace(tiny, classes=1000))
    source = RMT(replace(tiny, classes=1000)).eval()
    torch.save({"model": to_official_names(source.state_dict())}, tmp_path / "RMT-T.pth")
    overlay = {"file": str(tmp_path / "RMT-T.pth")}
    found = timm.create_model("rmt_t", pretrained=True, pretrained_cfg_overlay=overlay).eval()
    assert found(IMAGES).equal(source(IMAGES))
    fresh = timm.create_model(
        "rmt_t", pretrained=True, num_classes=5, in_chans=1, pretrained_cfg_overlay=overlay
    )
    assert fresh.classifier.out_features == 5
    grey = source.stem[0][0].weight.sum(1, keepdim=True)
    assert torch.allclose(fresh.stem[0][0].weight, grey, atol=1e-6)
    assert fresh.head.projection.weight.equal(source.head.projection.weight)


def test_every_parameter_belongs_to_a_layer_group(model: TimmRMT) -> None:
    from timm.optim._param_groups import param_groups_layer_decay

    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.8)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert model.no_weight_decay() == set()
