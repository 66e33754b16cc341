"""``hat upscale | evaluate | prepare | show``."""

from image_restoration_kit.commands import super_resolution_app

from hat.model import HAT


def main() -> None:
    super_resolution_app("hat", HAT.load)()
