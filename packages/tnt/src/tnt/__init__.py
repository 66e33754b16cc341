"""TNT: Transformer in Transformer (NeurIPS 2021)."""

from tnt.model import TNT, VARIANTS, TNTConfig

__all__ = ["TNT", "VARIANTS", "TNTConfig"]
