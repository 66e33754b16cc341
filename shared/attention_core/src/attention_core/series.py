"""What forecasters of time series share."""

from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-5


def standardise(
    x: Float[Tensor, "batch lookback variates"],
) -> tuple[
    Float[Tensor, "batch lookback variates"],
    Float[Tensor, "batch 1 variates"],
    Float[Tensor, "batch 1 variates"],
]:
    """Each variate's window at mean 0 and deviation 1, with the mean and deviation it had.

    The non-stationary Transformer's way: the variance is that of the window itself (over lookback,
    not lookback - 1) plus 1e-5, and no gradient flows through the mean. The statistics of half
    precision are float32.
    """
    window = x.float() if x.element_size() < 4 else x
    mean = window.mean(1, keepdim=True).detach()
    window = window - mean
    deviation = (window.var(1, keepdim=True, correction=0) + EPSILON).sqrt()
    return (window / deviation).to(x.dtype), mean, deviation
