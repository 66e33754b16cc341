"""What image restoration papers share: image files, bicubic, metrics, tiles, data, commands."""

from image_restoration_kit.enlarge import (
    SeamError,
    Tiling,
    Upscaler,
    automatic_tiling,
    enlarge,
    enlarge_picture,
    pad_to_multiple,
    seam_error,
    self_ensemble,
    symmetry,
)
from image_restoration_kit.families import family, require_family
from image_restoration_kit.images import (
    Picture,
    PictureError,
    find_images,
    read_picture,
    read_tensor,
    write_picture,
)
from image_restoration_kit.metrics import luma, psnr, quantise, ssim, ycbcr
from image_restoration_kit.resize import modcrop, resize

__all__ = [
    "Picture",
    "PictureError",
    "SeamError",
    "Tiling",
    "Upscaler",
    "automatic_tiling",
    "enlarge",
    "enlarge_picture",
    "family",
    "find_images",
    "luma",
    "modcrop",
    "pad_to_multiple",
    "psnr",
    "quantise",
    "read_picture",
    "read_tensor",
    "require_family",
    "resize",
    "seam_error",
    "self_ensemble",
    "ssim",
    "symmetry",
    "write_picture",
    "ycbcr",
]
