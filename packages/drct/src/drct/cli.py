"""``drct upscale | evaluate | prepare | show``."""

from image_restoration_kit.commands import super_resolution_app

from drct.model import DRCT


def main() -> None:
    super_resolution_app("drct", DRCT.load)()
