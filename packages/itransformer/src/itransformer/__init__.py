"""iTransformer: Inverted Transformers Are Effective for Time Series Forecasting (ICLR 2024)."""
