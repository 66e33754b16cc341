"""VGG-19, frozen: what the hypercolumn and the feature losses look with."""

import re
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from attention_core import Checkpoint, CheckpointError, load_state, read_checkpoint
from jaxtyping import Float
from torch import Tensor, nn

# Width of each convolution, by its place among torchvision's layers; a rectifier follows each, and
# a pooling stands where the numbers jump by three.
CONVOLUTIONS = {
    0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 16: 256,
    19: 512, 21: 512, 23: 512, 25: 512, 28: 512, 30: 512,
}  # fmt: skip
RECTIFIED = (1, 6, 11, 20, 29)
"""relu1_1, relu2_1, relu3_1, relu4_1, relu5_1."""
WIDTHS = tuple(CONVOLUTIONS[layer - 1] for layer in RECTIFIED)
CONV5_2 = 30
"""Before its rectifier."""
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG19(nn.Module):
    """The convolutions of VGG-19 up to a layer. Its weights are buffers: they never learn.

    Fresh weights are random; :meth:`load` reads the trained ones.

    Args:
        last: the last convolution's place among torchvision's layers, 28 or 30.
    """

    def __init__(self, last: int = 28) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        channels = 3
        for place, width in CONVOLUTIONS.items():
            if place <= last:
                self.layers[str(place)] = _Frozen(channels, width)
            channels = width

    def load(self, checkpoint: Checkpoint) -> None:
        """Take the weights of torchvision's ``vgg19-dcbb9e9d.pth``, or of another file like it.

        Raises:
            CheckpointError: when the file is not a VGG-19.
            FileNotFoundError: when it is not there.
        """
        load_state(self, vgg_state(read_checkpoint(checkpoint), self.layers))

    def forward(
        self, image: Float[Tensor, "b 3 h w"], layers: Iterable[int] = RECTIFIED
    ) -> list[Float[Tensor, "b c ph pw"]]:
        """The outputs of some of torchvision's layers; an odd number is a rectifier."""
        x = image.contiguous(memory_format=torch.channels_last)
        wanted, found, place = set(layers), [], 0
        for key, convolution in self.layers.items():
            if int(key) - place > 1:
                x = F.max_pool2d(x, 2)
            place = int(key) + 1
            x = convolution(x)
            if int(key) in wanted:
                found.append(x.clone())
            x = x.relu_()
            if place in wanted:
                found.append(x)
        return found


def normalise(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """An image in [0, 1] as VGG-19 was trained: the mean of ImageNet off, over its deviation."""
    mean, deviation = (image.new_tensor(v) for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return (image - mean[:, None, None]) / deviation[:, None, None]


def vgg_state(state: Mapping[str, Tensor], places: Iterable[str]) -> dict[str, Tensor]:
    """The entries of ``places`` in a VGG-19 checkpoint of torchvision's or of the authors' names.

    Raises:
        CheckpointError: when one is missing.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if m := re.search(r"(?:^|features\.)(\d+)\.(weight|bias)$", key):
            found[f"layers.{m[1]}.{m[2]}"] = value
    needed = [f"layers.{place}.{kind}" for place in places for kind in ("weight", "bias")]
    if missing := [key for key in needed if key not in found]:
        raise CheckpointError(
            f"not a VGG-19 checkpoint: {len(missing)} entries missing, such as "
            f"features.{missing[0].removeprefix('layers.')}"
        )
    return {key: found[key] for key in needed}


class _Frozen(nn.Module):
    """A 3 x 3 convolution whose weights are buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        fresh = nn.Conv2d(channels, width, 3)
        nn.init.kaiming_normal_(fresh.weight, nonlinearity="relu")
        self.register_buffer("weight", fresh.weight.detach())
        self.register_buffer("bias", torch.zeros_like(fresh.bias.detach()))  # type: ignore[union-attr]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return F.conv2d(x, self.weight, self.bias, padding=1)
