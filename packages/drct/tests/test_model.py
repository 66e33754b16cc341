"""Configurations, shapes, reach, training behaviour and messages."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from drct import DRCT, VARIANTS, DRCTConfig
from drct.claims import ChainGroup, chain, intensities
from drct.paper import PAPER
from hypothesis import given, settings
from hypothesis import strategies as st
from image_restoration_kit.evidence import gmacs

TINY = PAPER.tiny[0]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([2, 3, 5]),
)
def test_any_whole_number_of_windows(
    scale: int, channels: int, rows: int, columns: int, window: int
) -> None:
    config = replace(TINY, scale=scale, channels=channels, window=window, heads=(2,))
    image = torch.rand(2, channels, rows * window, columns * window)
    assert DRCT(config)(image).shape == (2, channels, *(scale * s for s in image.shape[2:]))


def test_no_pixel_beyond_the_reach_matters() -> None:
    torch.manual_seed(0)
    model = DRCT(replace(TINY, heads=(2,), scale=1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    image = torch.rand(1, 3, 4, 80, dtype=torch.float64, requires_grad=True)
    middle = model(image)[..., 40].sum()
    (gradient,) = torch.autograd.grad(middle, image)
    touched = (gradient.abs().amax((0, 1, 2)) > 1e-30).nonzero().flatten()
    reach = max(40 - int(touched.min()), int(touched.max()) - 40)
    assert reach <= model.reach
    assert reach > model.reach // 2


def test_published_models_reach_far() -> None:
    with torch.device("meta"):
        assert DRCT(VARIANTS["drct_x4"]).reach > 200


def test_unshifted_windows_never_meet() -> None:
    model = DRCT(replace(TINY, shifted=False, body_conv=False, heads=(2,)))
    x = torch.rand(1, 16, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.forward_features(x)[..., :4, :4].sum(), x)
    assert gradient[..., 4:, :].abs().max() == 0
    assert gradient[..., :, 4:].abs().max() == 0


def test_drop_path_follows_the_groups_and_keeps_the_mean() -> None:
    config = replace(TINY, heads=(2,) * 3, drop_path=0.34)
    assert config.drop_paths == pytest.approx([0.0, 0.34 * 6 / 17, 0.34 * 12 / 17])
    layer = DRCT(config).groups[2].layers[0].train()
    torch.manual_seed(0)
    kept = layer.drop_path(torch.ones(4000, 1, 1, 1))
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert sorted(set(kept.flatten().tolist())) == pytest.approx([0, 1 / (1 - 0.24)])
    layer.eval()
    assert layer.drop_path(torch.ones(4, 1, 1, 1)).eq(1).all()


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = DRCT(replace(TINY, dim=60, heads=(6,), growth=20))
    layer = model.groups[0].layers[1]
    for weight in (layer.mlp.fc1.weight, layer.attention.qkv.weight, layer.attention.table):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert layer.mlp.fc1.bias.eq(0).all()
    assert layer.attention.qkv.bias.eq(0).all()


def test_costs() -> None:
    assert gmacs(partial(DRCT, VARIANTS["drct_x4"])) == pytest.approx(74.3, abs=0.1)
    assert gmacs(partial(DRCT, VARIANTS["drct_x2"])) == pytest.approx(71.8, abs=0.1)
    assert gmacs(partial(DRCT, VARIANTS["drct_l_x4"])) == pytest.approx(143.9, abs=0.1)


def test_the_chain_has_the_same_weights_and_no_dense_connections() -> None:
    torch.manual_seed(0)
    config = replace(TINY, heads=(2,))
    model = chain(config)
    assert isinstance(model.groups[0], ChainGroup)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in DRCT(config).parameters()
    )
    layers: list[Any] = []
    model.groups[0].layers[3].register_forward_pre_hook(lambda m, x: layers.append(x[0]))
    model(torch.rand(1, 3, 8, 8))
    assert layers[0][..., 16:24].abs().max() == 0
    assert layers[0][..., 24:].abs().max() > 0
    assert len(intensities(model, torch.rand(1, 3, 8, 8))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 5}, "scale=5: must be 3 or a power of two"),
        ({"heads": (3,)}, "a layer of width 16 gets 3 heads, which do not divide it"),
        ({"heads": ()}, "heads=()"),
        ({"mlp_ratio": 0}, "mlp_ratio=0: must be positive"),
        ({"image_range": 0}, "image_range=0: must be positive"),
        ({"drop_path": 1}, "drop_path=1: must be in"),
        ({"window": 1}, "a window of 1 can't shift"),
        ({"positions": 7}, "positions=7: must be None or a multiple of window"),
    ],
)
def test_configurations_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    sizes = {"scale": 2, "dim": 16, "heads": (2, 2), "window": 4, "growth": 4}
    with pytest.raises(ValueError, match=message.replace("()", r"\(\)")):
        DRCTConfig(**{**sizes, **changes})


def test_images_that_do_not_fit() -> None:
    model = DRCT(TINY)
    with pytest.raises(ValueError, match="8 x 9: both sides must be multiples of the window, 4"):
        model(torch.rand(1, 3, 8, 9))
    with pytest.raises(ValueError, match="multiples of the window"):
        model(torch.rand(1, 3, 0, 8))
    with pytest.raises(ValueError, match="4 channels, the model takes 3"):
        model(torch.rand(1, 4, 8, 8))
    with pytest.raises(TypeError, match=r"floating point in \[0, 1\], got torch.uint8"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="absolute positions tie this model to 8 x 8"):
        DRCT(replace(TINY, positions=8))(torch.rand(1, 3, 8, 12))
