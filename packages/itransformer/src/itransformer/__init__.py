"""iTransformer: Inverted Transformers Are Effective for Time Series Forecasting (ICLR 2024)."""

from itransformer.model import VARIANTS, ITransformer, ITransformerConfig

__all__ = ["VARIANTS", "ITransformer", "ITransformerConfig"]
