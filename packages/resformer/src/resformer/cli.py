"""``resformer classify | evaluate | sizes | features | convert``."""

from pathlib import Path
from typing import Any

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("resformer", "images"):
        from image_classification_kit.commands import classification_app
    classification_app(
        "resformer",
        load,
        draw=draw_attention,
        map_help="Write a figure: what the class token attends to, in three of the blocks.",
    )()


def load(checkpoint: Path) -> Any:
    """A saved folder, or the authors' file."""
    from resformer.model import ResFormer

    if checkpoint.is_dir():
        return ResFormer.from_pretrained(checkpoint)
    return ResFormer.from_official(checkpoint)


def draw_attention(model: Any, picture: Any, path: Path) -> Path:
    """The class token's attention to the patches, mean over heads, over the picture."""
    from image_classification_kit import Preprocessing
    from image_classification_kit.figures import attention_figure

    return attention_figure(model, picture, path, Preprocessing())
