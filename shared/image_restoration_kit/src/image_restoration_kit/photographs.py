"""Photographs that scikit-image ships: real images without a download, and no benchmark."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from image_restoration_kit.images import read_tensor

TRAINING = ("coffee.png", "motorcycle_left.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png")
HELD_OUT = ("astronaut.png", "chelsea.png")


def photograph(name: str) -> Float[Tensor, "3 h w"]:
    """One of scikit-image's photographs in [0, 1].

    Raises:
        ModuleNotFoundError: without scikit-image, which the extra ``train`` brings.
    """
    import skimage

    return read_tensor(Path(skimage.__file__).parent / "data" / name)
