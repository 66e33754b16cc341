"""``resformer classify | evaluate | sizes | features | convert``."""

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("resformer", "images"):
        from image_classification_kit.commands import classification_app
        from image_classification_kit.figures import attention_figure
    from resformer.model import ResFormer

    classification_app(
        "resformer",
        ResFormer.load,
        draw=attention_figure,
        map_help="Write a figure: what the class token attends to, in three of the blocks.",
    )()
