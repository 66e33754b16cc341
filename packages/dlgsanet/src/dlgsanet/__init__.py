"""DLGSANet: light super-resolution by dynamic local and sparse global self-attention."""

from dlgsanet.dynamic import dynamic_convolution
from dlgsanet.model import VARIANTS, DLGSANet, DLGSANetConfig

__all__ = ["VARIANTS", "DLGSANet", "DLGSANetConfig", "dynamic_convolution"]
