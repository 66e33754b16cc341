"""Golden cases; the two rearranged parts against their definitions; checkpoints."""

import pytest
import torch
import torch.nn.functional as F
from attention_core import CheckpointError, GoldenCase, golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from rrformer import RRFormer
from rrformer.features import CONVOLUTIONS, VGG19
from rrformer.model import Hypercolumn, PyramidPooling
from rrformer.paper import PAPER
from torch import nn


@pytest.mark.parametrize("case", golden_cases("rrformer"), ids=lambda case: case.name)
def test_golden(case: GoldenCase) -> None:
    assert case.failures(PAPER.golden(case)) == {}


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_hypercolumn_equals_the_stack(height: int, width: int, count: int) -> None:
    widths = (3, *range(2, 2 + count))
    layer = Hypercolumn(5, widths).double()
    sizes = [(height, width), *[(max(1, height // 2), max(1, width // 3))] * count]
    maps = [torch.rand(2, w, *size).double() for w, size in zip(widths, sizes, strict=True)]
    stack = [F.interpolate(m, (height, width), mode="bilinear") for m in maps]
    expected = F.conv2d(torch.cat(stack, 1), layer.weight, layer.bias)
    torch.testing.assert_close(layer(maps), expected)


@settings(max_examples=8, deadline=None)
@given(st.integers(8, 21), st.integers(8, 21))
def test_pyramid_equals_the_stack(height: int, width: int) -> None:
    layer = PyramidPooling(6, (2, 4, 8), 3).double()
    x = torch.randn(2, 6, height, width).double()
    stack = [
        F.interpolate(F.leaky_relu(stage(F.avg_pool2d(x, side)), 0.2), (height, width))
        for side, stage in zip(layer.sides, layer.stages, strict=True)
    ]
    expected = F.leaky_relu(layer.mix(torch.cat([*stack, x], 1)), 0.2)
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_vgg_equals_a_chain_of_layers() -> None:
    vgg, image = VGG19(30), torch.rand(1, 3, 33, 48)
    x = image
    layers: list[nn.Module] = []
    for place, width in CONVOLUTIONS.items():
        if len(layers) < place:
            layers.append(nn.MaxPool2d(2))
        conv = nn.Conv2d(vgg.layers[str(place)].weight.shape[1], width, 3, padding=1)
        conv.load_state_dict(vgg.layers[str(place)].state_dict())
        layers += [conv, nn.ReLU()]
    outputs = []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    assert [f.shape[1] for f in vgg(image)] == [64, 128, 256, 512, 512]
    for place, found in zip((1, 11, 30), vgg(image, [1, 11, 30]), strict=True):
        torch.testing.assert_close(found, outputs[place])


def released() -> dict[str, torch.Tensor]:
    case = next(case for case in golden_cases("rrformer") if case.name == "as_released")
    return case.state_dict()


def test_checkpoints_that_do_not_fit_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"not an RRFormer checkpoint: conv1\.conv2d\.weight"):
        RRFormer.from_official({"conv.weight": torch.ones(1)})
    network = {k.removeprefix("net_i."): v for k, v in released().items() if "vgg" not in k}
    with pytest.raises(CheckpointError, match="the hypercolumn needs VGG-19, which the authors'"):
        RRFormer.from_official({"icnn": network, "epoch": 3})
    vgg = {f"features.{k.split('features.')[1]}": v for k, v in released().items() if "vgg" in k}
    model = RRFormer.from_official({"icnn": network, "epoch": 3}, vgg=vgg)
    assert model.embedding.vgg is not None
    assert model.embedding.vgg.layers["28"].weight.equal(vgg["features.28.weight"])
    del vgg["features.0.bias"]
    with pytest.raises(CheckpointError, match=r"1 entries missing, such as features\.0\.bias"):
        VGG19().load(vgg)
