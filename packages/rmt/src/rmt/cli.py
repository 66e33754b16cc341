"""``rmt classify | evaluate | features | convert``."""

from pathlib import Path
from typing import Any

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("rmt", "images"):
        from image_classification_kit.commands import classification_app
    from rmt.model import RMT

    classification_app(
        "rmt",
        RMT.load,
        draw=draw_decay,
        map_help="Write a figure: how much of each position's weight the decay leaves, seen from "
        "the middle of the picture.",
    )()


def draw_decay(model: Any, images: Any, picture: Any, path: Path) -> Path:
    """The decay of every stage's nearest- and farthest-sighted head, over the picture."""
    from image_classification_kit.figures import map_figure

    from rmt.attention import Decay, decay_map

    config, maps = model.config, {}
    h, w = picture.height, picture.width
    for _ in range(2):
        h, w = -(-h // 2), -(-w // 2)
    sizes = zip(config.heads, config.decay_start, config.decay_spread, strict=True)
    for stage, (heads, start, spread) in enumerate(sizes):
        seen = decay_map(Decay(heads, start, spread), h, w, h // 2, w // 2)
        maps[f"stage {stage + 1}, head 1"] = seen[0]
        maps[f"stage {stage + 1}, head {heads}"] = seen[-1]
        h, w = -(-h // 2), -(-w // 2)
    return map_figure(picture, maps, path)
