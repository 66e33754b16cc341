"""HAT: image restoration by channel attention beside window attention, and windows that overlap."""

from hat.model import HAT, VARIANTS, HATConfig

__all__ = ["HAT", "VARIANTS", "HATConfig"]
