"""``dlgsanet upscale | evaluate | prepare | show``."""

from image_restoration_kit.commands import super_resolution_app

from dlgsanet.model import DLGSANet


def main() -> None:
    super_resolution_app("dlgsanet", DLGSANet.load)()
