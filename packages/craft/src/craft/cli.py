"""``craft upscale | evaluate | prepare | show``."""

from image_restoration_kit.commands import super_resolution_app

from craft.model import CRAFT


def main() -> None:
    super_resolution_app("craft", CRAFT.load)()
