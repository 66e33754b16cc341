"""``rgt upscale | evaluate | prepare | show``."""

from image_restoration_kit.commands import super_resolution_app

from rgt.model import RGT


def main() -> None:
    super_resolution_app("rgt", RGT.load)()
