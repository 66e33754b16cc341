"""What timm's users expect of a backbone."""

from dataclasses import replace

import pytest
import resformer.timm
import timm
import torch
from resformer import ResFormer, ResFormerConfig
from resformer.official import to_official_names
from resformer.timm import TimmResFormer

IMAGES = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny: ResFormerConfig) -> TimmResFormer:
    return TimmResFormer(tiny, num_classes=7).eval()


def test_names_are_registered() -> None:
    names = ["resformer_base_patch16", "resformer_small_patch16", "resformer_tiny_patch16"]
    assert timm.list_models("resformer*") == names
    with torch.device("meta"):
        model = timm.create_model(names[1], num_classes=10, in_chans=1, img_size=384)
    assert model.config == replace(
        ResFormer.variants[names[1]], classes=10, channels=1, drop_path=0.1
    )
    assert timm.data.resolve_model_data_config(model)["crop_pct"] == 0.875
    with pytest.raises(TypeError, match="no_such_argument"):
        timm.create_model(names[2], no_such_argument=1)


def test_levels_and_pools(tiny: ResFormerConfig, model: TimmResFormer) -> None:
    plain = ResFormer(tiny).eval()
    plain.load_state_dict(model.state_dict())
    tokens = plain.forward_features(IMAGES)
    final, maps = model.forward_intermediates(IMAGES, norm=True)
    assert final.equal(tokens)
    assert [tuple(x.shape) for x in maps] == [(1, 24, 2, 3)] * 2
    assert maps[-1].equal(plain.feature_map(IMAGES))
    assert model(IMAGES).equal(plain(IMAGES))
    model.reset_classifier(0, "avg")
    assert model(IMAGES).equal(tokens[:, 1:].mean(1))
    model.reset_classifier(0, "")
    assert model(IMAGES).equal(tokens)


def test_authors_file_by_timms_way(tiny: ResFormerConfig, tmp_path, monkeypatch) -> None:
    name = "resformer_tiny_patch16"
    monkeypatch.setitem(resformer.timm.VARIANTS, name, replace(tiny, classes=1000))
    source = ResFormer(replace(tiny, classes=1000)).eval()
    torch.save({"model": to_official_names(source.state_dict())}, tmp_path / "t.pth")
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "t.pth")}}
    assert timm.create_model(name, **options).eval()(IMAGES).equal(source(IMAGES))
    other = timm.create_model(name, num_classes=5, in_chans=1, **options)
    grey = source.patch_embedding.weight.sum(1, keepdim=True)
    assert torch.allclose(other.patch_embedding.weight, grey, atol=1e-6)
    again = resformer.timm.weights(source.state_dict(), source)
    assert again.keys() == source.state_dict().keys()


def test_features_only() -> None:
    encoder = timm.create_model("resformer_tiny_patch16", features_only=True, out_indices=(2, 5))
    assert encoder.feature_info.reduction() == [16, 16]
    with torch.no_grad():
        maps = encoder.eval()(torch.randn(1, 3, 32, 48))
    assert [tuple(x.shape) for x in maps] == [(1, 192, 2, 3)] * 2


def test_every_parameter_belongs_to_a_layer_group(model: TimmResFormer) -> None:
    from timm.optim._param_groups import param_groups_layer_decay

    groups = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.8
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
