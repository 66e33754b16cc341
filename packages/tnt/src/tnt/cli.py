"""``tnt classify | evaluate | features | convert``."""

from typing import Any

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("tnt", "images"):
        from image_classification_kit.commands import classification_app
        from image_classification_kit.figures import attention_figure
    from tnt.model import TNT

    classification_app(
        "tnt",
        TNT.load,
        preprocessing=preprocessing(),
        draw=attention_figure,
        map_help="Write a figure: what the class token attends to, in three of the blocks.",
    )()


def preprocessing() -> Any:
    """How the published networks' inputs are made."""
    from image_classification_kit import Preprocessing

    return Preprocessing(crop=0.9, mean=(0.5,) * 3, std=(0.5,) * 3)
