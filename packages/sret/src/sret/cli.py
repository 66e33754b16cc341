"""``sret classify | evaluate | features | convert``."""

from pathlib import Path
from typing import Any

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("sret", "images"):
        from image_classification_kit.commands import classification_app
    classification_app(
        "sret",
        load,
        draw=draw_attention,
        map_help="Write a figure: what the middle of the picture attends to, at the end of each "
        "stage.",
    )()


def load(checkpoint: Path) -> Any:
    """A saved folder, or the authors' file of a sliced network."""
    from sret.model import SReT

    # One rule for both kinds of file: the name is all that tells a network without slices.
    return SReT.load(checkpoint, sliced="wo_slice" not in checkpoint.name)


def draw_attention(model: Any, images: Any, picture: Any, path: Path) -> Path:
    """The middle token's attention in each stage's last application, mean over heads."""
    import torch
    from image_classification_kit.figures import map_figure

    with torch.no_grad():
        found = model.middle_attention(images)
    return map_figure(picture, {f"stage {i + 1}": x[0].mean(0) for i, x in enumerate(found)}, path)
