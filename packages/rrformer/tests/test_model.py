import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrformer import VARIANTS, RRFormer, RRFormerConfig
from rrformer.features import VGG19
from rrformer.losses import Discriminator, relative_loss, unaligned_loss
from rrformer.paper import PAPER


@settings(max_examples=8, deadline=None)
@given(st.integers(32, 49), st.integers(32, 49))
def test_any_size_from_32_comes_back_in_its_size(height: int, width: int) -> None:
    model = RRFormer(PAPER.tiny[1]).eval()
    out = model(torch.rand(1, 3, height, width))
    assert out.shape == (1, 3, height, width)
    assert out.min() >= 0


def test_the_released_form_goes_without_the_body() -> None:
    torch.manual_seed(0)
    residual, bypass = (
        RRFormer(PAPER.tiny[0]).eval(),
        RRFormer(RRFormerConfig(**{**vars(PAPER.tiny[0]), "body": "bypass"})).eval(),
    )
    bypass.load_state_dict(residual.state_dict())
    image = torch.rand(1, 3, 32, 40)
    assert not residual(image).equal(bypass(image))
    with torch.no_grad():
        residual.body.conv.weight.zero_()
        residual.body.conv.bias.zero_()
    torch.testing.assert_close(residual(image), bypass(image))
    assert not any(p.requires_grad for p in bypass.body.parameters())


def test_features_are_frozen_and_detached() -> None:
    model = RRFormer(PAPER.tiny[0])
    assert not any(name.startswith("embedding.vgg") for name, _ in model.named_parameters())
    assert any(name.startswith("embedding.vgg.layers.28") for name in model.state_dict())


def test_the_discriminator_judges_images_of_any_size() -> None:
    judge = Discriminator((32, 32, 64), 16)
    assert judge(torch.rand(3, 3, 40, 33)).shape == (3,)
    assert sum(p.numel() for p in Discriminator().parameters()) == 9_937_089


def test_relative_loss_is_symmetric_and_falls_with_confidence() -> None:
    real, fake = torch.tensor([2.0, 1.0]), torch.tensor([-1.0, 0.0])
    judged = relative_loss(real, fake, generator=False)
    assert judged < relative_loss(fake, real, generator=False)
    torch.testing.assert_close(judged, relative_loss(fake, real, generator=True))


def test_unaligned_loss_reaches_the_output_only() -> None:
    output = torch.rand(1, 3, 32, 32, requires_grad=True)
    target = torch.rand(1, 3, 32, 32, requires_grad=True)
    unaligned_loss(VGG19(30), output, target).backward()
    assert output.grad is not None
    assert target.grad is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "RRFormerConfig.dim=0"),
        ({"heads": 7}, "RRFormerConfig.heads=7: must divide dim=240"),
        ({"pyramid": (4, 64)}, "no pooling may exceed 32"),
        ({"body": "none"}, "must be one of 'residual', 'bypass'"),
        ({"drop_path": 1.0}, "must be in [0, 1)"),
        ({"window": 1}, "a window of 1 can't shift"),
    ],
)
def test_bad_configurations_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RRFormerConfig(**changes)


def test_images_that_do_not_fit_are_named() -> None:
    model = RRFormer(PAPER.tiny[1])
    with pytest.raises(ValueError, match="31 x 40: both sides must be at least 32"):
        model(torch.rand(1, 3, 31, 40))
    with pytest.raises(ValueError, match="the image has 1 channels, the model takes 3"):
        model(torch.rand(1, 1, 32, 32))
    with pytest.raises(TypeError, match=r"expects floating point in \[0, 1\]"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_variants() -> None:
    assert VARIANTS["rrformer"].body == "residual"
    assert VARIANTS["rrformer_released"].body == "bypass"
