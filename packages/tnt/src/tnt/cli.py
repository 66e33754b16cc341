"""``tnt classify | evaluate | features | convert``."""

from pathlib import Path
from typing import Any

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("tnt", "images"):
        from image_classification_kit.commands import classification_app
    classification_app(
        "tnt",
        load,
        preprocessing=preprocessing(),
        draw=draw_attention,
        map_help="Write a figure: what the class token attends to, in three of the blocks.",
    )()


def preprocessing() -> Any:
    """How the published networks' inputs are made."""
    from image_classification_kit import Preprocessing

    return Preprocessing(crop=0.9, mean=(0.5,) * 3, std=(0.5,) * 3)


def load(checkpoint: Path) -> Any:
    """A saved folder, or the authors' file."""
    from tnt.model import TNT

    if checkpoint.is_dir():
        return TNT.from_pretrained(checkpoint)
    return TNT.from_official(checkpoint)


def draw_attention(model: Any, picture: Any, path: Path) -> Path:
    """The class token's attention to the patches, mean over heads, over the picture."""
    from image_classification_kit.figures import attention_figure

    return attention_figure(model, picture, path, preprocessing())
