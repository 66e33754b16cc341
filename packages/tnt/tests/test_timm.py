"""What timm's users expect of a backbone."""

from dataclasses import replace

import pytest
import timm
import tnt.timm
import torch
from tnt import TNT, TNTConfig
from tnt.official import to_official_names
from tnt.timm import TimmTNT

IMAGES = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny: TNTConfig) -> TimmTNT:
    return TimmTNT(tiny, num_classes=7).eval()


def test_names_stand_beside_timms_own() -> None:
    assert {"tnt_s", "tnt_b", "tnt_ti"} < set(timm.list_models("tnt*"))
    with torch.device("meta"):
        assert not isinstance(timm.create_model("tnt_s_patch16_224"), TNT)
        model = timm.create_model("tnt_s", num_classes=10, in_chans=1, img_size=384)
    assert isinstance(model, TNT)
    assert model.outer_positions.shape == (1, 1 + 24 * 24, 384)
    assert model.config.drop_path == 0.1
    found = timm.data.resolve_model_data_config(model)
    assert (found["mean"], found["crop_pct"]) == ((0.5, 0.5, 0.5), 0.9)


def test_levels_and_pools(tiny: TNTConfig, model: TimmTNT) -> None:
    plain = TNT(tiny).eval()
    plain.load_state_dict(model.state_dict())
    tokens = plain.forward_features(IMAGES)
    final, maps = model.forward_intermediates(IMAGES, norm=True)
    assert final.equal(tokens)
    assert [tuple(x.shape) for x in maps] == [(1, 12, 2, 3)] * 2
    assert maps[-1].flatten(2).mT.equal(tokens[:, 1:])
    assert model(IMAGES).equal(plain(IMAGES))
    model.reset_classifier(0, "avg")
    assert model(IMAGES).equal(tokens[:, 1:].mean(1))
    model.reset_classifier(0, "")
    assert model(IMAGES).equal(tokens)


def test_authors_file_by_timms_way(tiny: TNTConfig, tmp_path, monkeypatch) -> None:
    square = replace(tiny, image_size=(16, 16), classes=1000)
    monkeypatch.setitem(tnt.timm.VARIANTS, "tnt_ti", square)
    source = TNT(square).eval()
    torch.save(to_official_names(source.state_dict()), tmp_path / "tnt.pth.tar")
    overlay = {"file": str(tmp_path / "tnt.pth.tar")}
    options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    found = timm.create_model("tnt_ti", img_size=16, **options).eval()
    images = torch.randn(1, 3, 16, 16)
    assert found(images).equal(source(images))
    other = timm.create_model("tnt_ti", img_size=(24, 16), num_classes=5, in_chans=1, **options)
    assert other.outer_positions.equal(source.resized((24, 16)).outer_positions)
    grey = source.word_embedding.weight.sum(1, keepdim=True)
    assert torch.allclose(other.word_embedding.weight, grey, atol=1e-6)
    again = tnt.timm.weights(source.state_dict(), source)
    assert again.keys() == source.state_dict().keys()


def test_every_parameter_belongs_to_a_layer_group(model: TimmTNT) -> None:
    from timm.optim._param_groups import param_groups_layer_decay

    groups = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.8
    )
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
