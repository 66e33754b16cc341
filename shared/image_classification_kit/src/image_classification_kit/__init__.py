"""What image classification papers share: files, data sets, accuracy, training, commands."""

from image_classification_kit.datasets import (
    PACKAGED,
    Arrays,
    ImageArrays,
    ImageFolder,
    as_tensors,
    digits,
    mnist5k,
    open_images,
    shapes,
    textures,
)
from image_classification_kit.evaluation import Accuracy, Prediction, evaluate, hits, predict
from image_classification_kit.figures import line_figure, map_figure
from image_classification_kit.fitting import accuracy, fit, linear_baseline
from image_classification_kit.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageError,
    Preprocessing,
    find_images,
    read_image,
    to_tensor,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PACKAGED",
    "Accuracy",
    "Arrays",
    "ImageArrays",
    "ImageError",
    "ImageFolder",
    "Prediction",
    "Preprocessing",
    "accuracy",
    "as_tensors",
    "digits",
    "evaluate",
    "find_images",
    "fit",
    "hits",
    "line_figure",
    "linear_baseline",
    "map_figure",
    "mnist5k",
    "open_images",
    "predict",
    "read_image",
    "shapes",
    "textures",
    "to_tensor",
]
