"""``histoformer restore | evaluate | show``."""

from image_restoration_kit.commands import restoration_app

from histoformer.model import Histoformer


def main() -> None:
    restoration_app("histoformer", Histoformer.load)()
